//! How a command ends: well, with messages lost, or not at all. It knows the exit codes and nothing else.

use posthouse::client::Stop;
use posthouse::protocol::CloseCode;

/// A command did what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// With nothing lost.
    Well,
    /// Some message ended expired or rejected.
    SomeLost,
}

/// A command could not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Fault {
    /// What it was asked makes no sense, or something has to be set up first.
    Usage(anyhow::Error),
    /// Everything else.
    Failed(anyhow::Error),
    /// Nobody reads standard output any more, as in `peer recv | head`: no news to anybody.
    Unread,
}

impl Fault {
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) | Self::Unread => 1,
        }
    }

    /// What to say about it, on one line: the error and its causes, none of them twice.
    pub(crate) fn words(&self) -> Option<String> {
        let (Self::Usage(error) | Self::Failed(error)) = self else { return None };
        let mut causes: Vec<String> = Vec::new();
        for cause in error.chain().map(ToString::to_string) {
            if !causes.last().is_some_and(|last| last.contains(&cause)) {
                causes.push(cause);
            }
        }
        Some(causes.join(": "))
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        let advice = match &stop {
            Stop::Superseded => {
                ": the same key is in use elsewhere, perhaps in a copy of this directory; stop one of the two"
            }
            Stop::Refused(reason) if reason.contains(CloseCode::NotInvited.name()) => {
                ": ask its operator for one, and give it with --invite TOKEN"
            }
            Stop::Refused(reason) if reason.contains(CloseCode::NotAllowed.name()) => ": ask its operator",
            Stop::Refused(_) => ": if the relay's address has changed, give the new one with --relay",
            _ => "",
        };
        Self::Failed(anyhow::anyhow!("{stop}{advice}"))
    }
}
