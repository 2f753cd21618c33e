"""What answers are rewarded for: functions that a recipe names, of its own or one of the files here.

Each other file here holds rewards that can be verified, `(prompt, answer, row, **options) -> float`; a recipe names
them in short: `gsm8k` is its `correct`, `format:thinking` another function of a file.
"""

from models.rl.rewards.config import MODEL, RewardFunction
from models.rl.rewards.scoring import Asked, Rewards

__all__ = ["MODEL", "Asked", "RewardFunction", "Rewards"]
