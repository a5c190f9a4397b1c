//! Decides whether the clock is in doubt, as a pure function of the evidence.

use flotta_bundle::clock::SKEW;
use jiff::{SignedDuration, Timestamp};

/// How long a server may have been off before an unconfirmed clock is in doubt: a month, as long as a device may be off and
/// still renew its certificate.
const AWAY: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Fewest devices that must contradict the clock, if there are that many: one that lies must not stop a fleet.
const WITNESSES: usize = 3;

/// The evidence about the time.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The clock's time.
    pub now: Timestamp,
    /// Whether the clock is synchronised.
    pub synchronised: Option<bool>,
    /// The time that a person accepted, advanced since then.
    pub accepted: Option<Timestamp>,
    /// When the release in force was issued.
    pub signed: Option<Timestamp>,
    /// The time when the clock was last right, advanced only while the server ran.
    pub right: Option<Timestamp>,
    /// How far devices with synchronised clocks are ahead of this clock.
    pub devices: &'a [SignedDuration],
    /// How many devices have joined.
    pub members: usize,
}

/// Why a clock is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Most devices with synchronised clocks have another time.
    Devices,
    /// The clock is before the last signature.
    BeforeSigned,
    /// The clock is before the time when it was last right.
    BeforeRight,
    /// The clock is long after the time when it was last right.
    LongAfter,
}

/// Whether the clock is in doubt. A person takes precedence, then the network, then the majority of devices.
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
        // it was right a short time ago, so a release that was issued later is what is wrong
        Some(_) => None,
        None => before(evidence.signed).then_some(Doubt::BeforeSigned),
    }
}

fn far(devices: &[SignedDuration]) -> usize {
    devices.iter().filter(|ahead| ahead.abs() > SKEW).count()
}

impl Doubt {
    /// The message for people.
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
                    "{now}, and {far} of {all} devices with synchronised clocks say {theirs:.0}"
                )
            }
            Self::BeforeSigned => format!(
                "{now}, and the release in force was issued at {}: one of the two is wrong",
                then(evidence.signed)
            ),
            Self::BeforeRight => {
                format!("{now}, but it has already been {}", then(evidence.right))
            }
            Self::LongAfter => format!(
                "{now}, and the server ran last at {}; nothing confirms that so much time has passed",
                then(evidence.right)
            ),
        }
    }
}
