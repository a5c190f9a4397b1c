//! The words of a device's conditions. They are part of the API: tools wait for them and alert on them, so none ever changes
//! its meaning. `docs/conditions.md` is generated from this file.

use std::fmt;

/// Defines an enum of words, each with its meaning for people.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($word:ident = $meaning:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[doc = $meaning] $word,)*
        }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$word),*];

            /// Returns the word as it is written.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)*
                }
            }

            /// Returns the meaning of the word.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$word => $meaning,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl PartialEq<$name> for str {
            fn eq(&self, word: &$name) -> bool {
                self == word.as_str()
            }
        }
    };
}

words! {
    /// The type of a device's condition.
    ConditionType {
        Ready = "The device has what it should have, and all of it runs.",
        Connected = "The device reports to the server.",
        InSync = "The device has applied the manifest that it is offered, and nobody has changed its files.",
        Updating = "The device is on its way to what it should have.",
        Healthy = "No workload has failed.",
        Drifted = "Somebody changed the fleet's files on the device.",
    }
}

words! {
    /// The status of a condition.
    ConditionStatus {
        True = "The condition holds.",
        False = "The condition does not hold.",
        Unknown = "Nobody can say.",
    }
}

words! {
    /// Why a condition of a device has its status.
    Reason {
        UpToDate = "The device has applied what it is offered, and all of it runs.",
        AllHealthy = "No workload has failed, and none says that it is not ready.",
        FilesUnchanged = "The fleet's files are as the device wrote them.",
        Reporting = "The device has reported within three heartbeats.",
        Idle = "The device is not working on an update.",
        Fetching = "The device is fetching what the release needs.",
        Applying = "The device is applying the release.",
        Starting = "Workloads are starting, or have stopped.",
        NotStarted = "The device has not started to work on the release.",
        UnknownPhase = "The device does something that this server does not know: its agent is newer.",
        FilesChanged = "Somebody changed files on the device. The agent restores them.",
        WorkloadFailed = "A workload has failed, or cannot be updated.",
        NotReady = "A workload runs, and its readiness check fails.",
        DeviceProblem = "The device reports a problem that does not belong to one workload.",
        ReleaseRefused = "The device refused what it was offered: it does not trust it, or cannot read it.",
        ApplyFailed = "The device cannot apply the release.",
        AgentTooOld = "The release needs a newer agent. The device keeps what it has.",
        NotJoined = "The device is in Git and has not joined yet.",
        NoReport = "The device has joined and has not reported yet.",
        NoRelease = "No release names the device. It keeps what it has.",
        ReportUnreadable = "The device's last report cannot be read.",
        NotReporting = "The device has missed three heartbeats.",
        NeverSeen = "The device has never spoken to this server.",
        Cloned = "Two machines use the identity of this device.",
        Revoked = "The device's identity was revoked.",
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}
