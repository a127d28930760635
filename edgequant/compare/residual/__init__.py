"""Is what is left between two arrays rounding, or a fault?  Pure functions over NumPy arrays; knows no devices, models
or limits, and calls nothing good or bad: it measures signs, each with a size and a strength.

Rounding is not white.  One activation that rounds the other way moves all that follows it in its time step, a
recurrent layer carries that on, and errors grow with the signal.  So no test here asks whether a residual is white.
They ask for what rounding does not do: to be the same in every case, in every part of each case, at the same index,
with the same sign, or to vanish where the array is shifted, flipped or exchanged.
"""

from edgequant.compare.residual.look import look
from edgequant.compare.residual.moved import swapped
from edgequant.compare.residual.sample import Pair, Sign, samples_of

__all__ = ["Pair", "Sign", "look", "samples_of", "swapped"]
