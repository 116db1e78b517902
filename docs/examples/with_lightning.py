"""PyTorch Lightning trains a metafilm learner on our episodes: python with_lightning.py --epochs 10

pip install lightning. The Lightning module below is all that is needed; `metafilm train` has its own loop,
which resumes to the last bit and cuts meta-batches to fit the cache.
"""

import argparse

import lightning
import torch

import episodes
import metafilm
from metafilm import film, norms

SHAPE = (1, 28, 28)


def learner() -> metafilm.MetaFiLM:
    """Conv-4 under FiLM, a task encoder, one inner step."""
    backbone = film.insert(metafilm.backbones.Conv4(SHAPE, width=32))
    sites = film.sites(backbone)
    return metafilm.MetaFiLM(
        backbone,
        metafilm.heads.build("cosine", backbone.out_features, 5),
        metafilm.TaskEncoder(backbone.out_features, sites),
        metafilm.InnerLoop(sites, steps=1),
        image_shape=SHAPE,
        steps=1,
    )


class FewShot(lightning.LightningModule):
    """A batch is an `episodes.Episode` of T tasks."""

    def __init__(self, penalty: float = 0.1) -> None:
        super().__init__()
        self.learner, self.penalty = learner(), penalty

    def training_step(self, episode: episodes.Episode, _: int) -> torch.Tensor:
        outcome = self.learner(episode)
        loss = self.learner.head.loss(outcome.predictions[-1], episode.query_labels).mean()
        deviations = torch.cat(list(outcome.films[-1].values()), 1)  # [T, all features]
        self.log("loss", loss, batch_size=episode.tasks)
        return loss + self.penalty * deviations.square().mean()

    def on_train_batch_end(self, *_: object) -> None:
        norms.commit(self.learner.backbone)  # running averages move once a step, by the means over its tasks

    def validation_step(self, episode: episodes.Episode, _: int) -> None:
        with torch.no_grad():
            predictions = self.learner(episode).predictions[-1]
        right = self.learner.head.measure(predictions, episode.query_labels).mean()
        self.log("validation_accuracy", right, batch_size=episode.tasks, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 5e-3)

    def transfer_batch_to_device(self, batch: episodes.Episode, device, _: int) -> episodes.Episode:
        return batch.to(device)


def loader(split: str, count: int, fresh: bool):
    """Training takes new episodes in each epoch, validation the same ones."""
    sampler = episodes.EpisodeSampler(episodes.load("strokes", split), ways=5, shots=1, queries=5, seed=0)
    return episodes.to_dataloader(sampler, count, meta_batch=4, fresh=fresh)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=400, help="of an epoch")
    options = parser.parse_args()
    lightning.seed_everything(0, verbose=False)
    module = FewShot()
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        inference_mode=False,  # inner steps need gradients in validation too
        gradient_clip_val=1.0,
    )
    trainer.fit(
        module, loader("train", options.tasks, fresh=True), loader("val", options.tasks // 4, fresh=False)
    )
    module.learner.save_pretrained("few-shot-lightning")
    print("written to few-shot-lightning; metafilm.MetaFiLM.from_pretrained reads it")


if __name__ == "__main__":
    main()
