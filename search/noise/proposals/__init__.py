"""One file per proposal. A proposal is a frozen spec that draws the recipe of a new candidate."""

from .antithetic import AntitheticProposal as AntitheticProposal
from .base import NoiseProposal as NoiseProposal
from .base import check_levels as check_levels
from .box import BoxProposal as BoxProposal
from .elite import EliteProposal as EliteProposal
from .gaussian import GaussianProposal as GaussianProposal
from .jittered import JitterProposal as JitterProposal
from .low_frequency import LowFrequencyProposal as LowFrequencyProposal
from .neighbor import NeighborProposal as NeighborProposal
from .orthogonal import OrthogonalProposal as OrthogonalProposal
