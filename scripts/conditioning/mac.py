"""MAC: memory, attention and composition (Hudson and Manning, ICLR 2018, arXiv:1803.03067), small.

The cell is as its authors run it: steps with a control of their own each, that don't read the previous
control; reading with unprojected knowledge; writing without a gate or self-attention; one dropout mask for
the memory of all steps. Dropout is there on the memory and on what is read alone (theirs is on words, stem,
question and answer too), and the stem is FiLM's of blocks.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MAC(nn.Module):
    """A picture's cells and a question -> logits.

    Args:
        vocabulary: words, with the 0 of no word.
        channels: of the maps that come in.
        width: of everything inside; even.
        steps: reasoning steps.
        dropout: of the memory, and of what is read.
    """

    def __init__(
        self,
        vocabulary: int,
        channels: int,
        answers: int,
        width: int = 128,
        steps: int = 4,
        dropout: float = 0.15,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(vocabulary, 64)
        self.ahead, self.back = (nn.LSTM(64, width // 2, batch_first=True) for _ in range(2))
        self.ask = nn.Linear(width, width)
        self.ask_step = nn.ModuleList(nn.Linear(width, width) for _ in range(steps))
        self.weigh_words = nn.Linear(width, 1)
        self.cells = nn.Linear(channels, width)
        self.of_memory, self.of_cells = nn.Linear(width, width), nn.Linear(width, width)
        # one linear layer of [product, cell], in two halves: the second is the same for all questions
        self.of_product, self.of_cell_alone = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.read = nn.Linear(width, width)
        self.weigh_cells = nn.Linear(width, 1)
        self.write = nn.Linear(2 * width, width)
        self.first = nn.Parameter(torch.randn(width))
        self.answer = nn.Sequential(nn.Linear(2 * width, width), nn.ELU(), nn.Linear(width, answers))
        self.of_question = nn.Linear(width, width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.uniform_(self.embedding.weight, -1, 1)

    def control(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """``[Q, L]`` int64 -> the question ``[Q, width]``, and what each step attends to ``[steps, Q,
        width]``."""
        states, question = self.both_ways(words)
        asked = torch.tanh(self.ask(question))
        controls = []
        for step in self.ask_step:
            scores = self.weigh_words(step(asked).unsqueeze(1) * states).squeeze(2)
            weights = scores.masked_fill(words == 0, -torch.inf).softmax(1)
            controls.append((weights.unsqueeze(2) * states).sum(1))
        return question, torch.stack(controls)

    def both_ways(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """States of an LSTM in either direction ``[Q, L, width]``, of no meaning where there is no word, and
        the last one of each direction ``[Q, width]``. The second reads sentences turned around, instead of
        packed by their lengths, which a GPU would have to hand to the processor."""
        length = (words != 0).sum(1, keepdim=True)
        places = torch.arange(words.shape[1], device=words.device)
        turned = torch.where(places < length, length - 1 - places, places).unsqueeze(2)
        read = self.embedding(words)
        ahead = self.ahead(read)[0]
        back = self.back(read.gather(1, turned.expand_as(read)))[0]
        end = (length - 1).clamp(min=0).unsqueeze(2)
        last = [states.gather(1, end.expand(-1, 1, states.shape[2])).squeeze(1) for states in (ahead, back)]
        return torch.cat((ahead, back.gather(1, turned.expand_as(back))), 2), torch.cat(last, 1)

    def forward(self, maps: Tensor, words: Tensor, rows: Tensor) -> Tensor:
        """Logits ``[I·n, answers]``.

        Args:
            maps: ``[I, channels, H, W]``, one a picture.
            words: ``[Q, L]`` the questions there are.
            rows: ``[I, n]`` int64, which of them are asked of each picture.
        """
        question, controls = self.control(words)
        question, controls = question[rows], controls[:, rows]  # [I, n, width], [steps, I, n, width]
        known = F.elu(self.cells(maps.flatten(2).transpose(1, 2)))  # [I, cells, width]
        projected = self.of_cells(known)
        alone = self.of_cell_alone(projected).unsqueeze(1)  # [I, 1, cells, width]
        memory = self.first.expand_as(question)
        mask = F.dropout(torch.ones_like(question), self.dropout, self.training)
        for control in controls:
            remembered = self.of_memory(memory * mask).unsqueeze(2)  # [I, n, 1, width]
            found = F.elu(self.of_product(remembered * projected.unsqueeze(1)) + alone)
            found = F.elu(self.read(found) * control.unsqueeze(2))  # [I, n, cells, width]
            scores = self.weigh_cells(F.dropout(found, self.dropout, self.training)).squeeze(3)
            memory = self.write(torch.cat((memory, scores.softmax(2) @ known), 2))
        return self.answer(torch.cat((memory, self.of_question(question)), 2)).flatten(0, 1)
