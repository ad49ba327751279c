"""Every error that twinkle raises on purpose; each message says what, where, the offending value and the likely fix.

    TwinkleError
    ├── ConfigError          a setting that cannot work (also ValueError)
    ├── DataError            a data file or row that cannot be used (also ValueError)
    ├── ModelNotFoundError   a model id that leads to no folder (also ValueError)
    ├── DownloadError        a model that cannot be fetched now (also OSError)
    ├── AdapterError         an adapter that is unknown or does not fit its model (also ValueError)
    ├── RewardError          a reward function that failed on a sample
    ├── WeightSyncError      sampler and trainer do not hold the same weights
    ├── CheckpointError      a checkpoint that cannot be written or read
    ├── SamplerError         a call of a sampler that could not be served
    │   ├── SampleTimeoutError   its deadline passed (also TimeoutError)
    │   ├── SampleAbortedError   it was aborted, or the sampler closed
    │   └── EngineLostError      the engine died and the call could not be repeated
    ├── InfraError           the processes of a device group cannot do what they are asked to
    │   ├── RankLostError        a rank's process died
    │   ├── RanksMissingError    a cluster that others keep has not got the ranks (also ConfigError)
    │   └── RemoteTimeoutError   a remote call did not end by its deadline (also TimeoutError)
    └── RunError             a run that cannot start or continue
        └── RunInUseError        its folder is held by another process

Errors that are also a ValueError are mistakes in what a person asked for (exit code 2); the others are failures at run
time (exit code 1). What is worth the same command again has exit code 75: a process or machine that is lost or missing.
"""

TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h."""


class TwinkleError(Exception):
    """Base of every error that twinkle raises on purpose."""

    exit_code = 1


class ConfigError(TwinkleError, ValueError):
    """A setting that cannot work: names the field, its value and what would be accepted."""

    exit_code = 2


class DataError(TwinkleError, ValueError):
    """A data file or row that cannot be used: names file, line and column."""

    exit_code = 2


class ModelNotFoundError(TwinkleError, ValueError):
    """A model id that leads to no folder with a model in it."""

    exit_code = 2


class DownloadError(TwinkleError, OSError):
    """A model that cannot be fetched now: no network, a hub that fails, a file that arrives broken."""


class AdapterError(TwinkleError, ValueError):
    """An adapter that is unknown, or does not fit the model it is added to."""

    exit_code = 2


class RewardError(TwinkleError):
    """A reward function raised, or returned something that is no finite number."""


class WeightSyncError(TwinkleError, RuntimeError):
    """Sampler and trainer do not hold the same weights, or a sample bears a version nobody published."""


class CheckpointError(TwinkleError, RuntimeError):
    """A checkpoint that cannot be written or read."""


class SamplerError(TwinkleError, RuntimeError):
    """A call of a sampler that could not be served, though nothing is wrong with what was asked for."""


class SampleTimeoutError(SamplerError, TimeoutError):
    """The deadline of a call passed: says how many of its sequences were done; the others are aborted."""


class SampleAbortedError(SamplerError):
    """A call ended by ``abort`` or ``close`` before all of its sequences were done."""


class EngineLostError(SamplerError):
    """The engine died, and the call could not be repeated on another one."""


class RunError(TwinkleError, RuntimeError):
    """A run that cannot start or continue."""


class RunInUseError(RunError):
    """Another process holds the folder of the run."""

    exit_code = TRY_AGAIN


class InfraError(TwinkleError, RuntimeError):
    """The processes of a device group cannot do what they are asked to, e.g. because they were closed."""


class RankLostError(InfraError):
    """The process of a rank died, or its machine did: names rank, class and device group."""

    exit_code = TRY_AGAIN


class RanksMissingError(ConfigError, InfraError):
    """A Ray cluster that others keep has not got the ranks: names the group, what is asked and what is free."""

    exit_code = TRY_AGAIN


class RemoteTimeoutError(InfraError, TimeoutError):
    """A remote call did not end by its deadline: names the ranks that did not answer."""
