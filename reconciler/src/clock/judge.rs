//! The judgement: a pure function of what is known.

use flotta_bundle::clock::SKEW;
use jiff::{SignedDuration, Timestamp};

/// How long a server may have been off before a clock that nothing confirms is in doubt: a month, as long as a device may be
/// off and still renew.
const AWAY: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Devices that must contradict the clock, where there are as many: one that lies stops no fleet.
const WITNESSES: usize = 3;

/// What is known of the time.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What the clock says.
    pub now: Timestamp,
    /// Whether the network sets it.
    pub synchronised: Option<bool>,
    /// The time by a clock that a person has said is right, as it has gone on since.
    pub accepted: Option<Timestamp>,
    /// When the release in force was issued.
    pub signed: Option<Timestamp>,
    /// The time by the last clock that was right; it stands still while no server runs.
    pub right: Option<Timestamp>,
    /// How far devices whose clocks the network sets are ahead of this clock.
    pub devices: &'a [SignedDuration],
    /// How many devices have joined.
    pub members: usize,
}

/// Why a clock is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Most devices whose clocks the network sets say another time.
    Devices,
    /// It is before what was signed last.
    BeforeSigned,
    /// It is before the time when it was right.
    BeforeRight,
    /// It is long after the time when it was right.
    LongAfter,
}

/// Whether the clock is in doubt. A person's word goes first, then the network's, then that of most devices.
pub fn judge(evidence: Evidence<'_>) -> Option<Doubt> {
    let Evidence { now, .. } = evidence;
    let near = |then: Timestamp| now.duration_since(then).abs() <= SKEW;
    if evidence.accepted.is_some_and(near) || evidence.synchronised == Some(true) {
        return None;
    }
    let far = far(evidence.devices);
    let most = evidence.devices.len() / 2 + 1;
    if far >= most && far >= WITNESSES.min(evidence.members) {
        return Some(Doubt::Devices);
    }
    if !evidence.devices.is_empty() && evidence.devices.len() - far >= most {
        return None;
    }
    let before = |then: Option<Timestamp>| then.is_some_and(|then| then.duration_since(now) > SKEW);
    match evidence.right {
        Some(right) if before(Some(right)) => Some(Doubt::BeforeRight),
        Some(right) if now.duration_since(right) > AWAY => Some(Doubt::LongAfter),
        // soon after a time when it was right: a release that was issued later is what is wrong
        Some(_) => None,
        None => before(evidence.signed).then_some(Doubt::BeforeSigned),
    }
}

fn far(devices: &[SignedDuration]) -> usize {
    devices.iter().filter(|ahead| ahead.abs() > SKEW).count()
}

impl Doubt {
    /// For people.
    pub(super) fn words(self, evidence: Evidence<'_>) -> String {
        let now = format!("it says {:.0}", evidence.now);
        let then =
            |then: Option<Timestamp>| then.map_or_else(String::new, |then| format!("{then:.0}"));
        match self {
            Self::Devices => {
                let (far, all) = (far(evidence.devices), evidence.devices.len());
                let mut sorted = evidence.devices.to_vec();
                sorted.sort_unstable();
                let ahead = sorted.get(all / 2).copied().unwrap_or_default();
                let theirs = evidence.now.saturating_add(ahead).unwrap_or(evidence.now);
                format!(
                    "{now}, and {far} of {all} devices whose clocks the network sets say {theirs:.0}"
                )
            }
            Self::BeforeSigned => format!(
                "{now}, and the release in force was issued at {}: either is wrong",
                then(evidence.signed)
            ),
            Self::BeforeRight => {
                format!("{now}, and it was later already: {}", then(evidence.right))
            }
            Self::LongAfter => format!(
                "{now}, and the server ran last at {}; nothing says that so much time has passed",
                then(evidence.right)
            ),
        }
    }
}
