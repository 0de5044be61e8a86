"""What the fork server of the workers imports first, and nobody else should.

It was started with SIGTERM blocked, as one for the whole process group is not for it. Its children listen.
"""

import os
import signal
from functools import partial

os.register_at_fork(after_in_child=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, [signal.SIGTERM]))
