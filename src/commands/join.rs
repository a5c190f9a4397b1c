//! `flotta approve`, `deny`, `revoke`.

use clap::Args;
use flotta_bundle::DeviceName;
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::request::{
    Approval, Decided, Denial, Left, RestoredDevices, Revocation,
};

use crate::error::Answer;
use crate::{output, print};

#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The device, as `flotta get requests` names it
    #[arg(required_unless_present = "restored")]
    device: Option<DeviceName>,
    /// All devices that have a certificate of this fleet and that the server does not know, after a restore from a backup
    #[arg(long, conflicts_with_all = ["device", "key", "set", "labels", "replace"])]
    restored: bool,
    /// The key it must have: the fingerprint shown on the device, or its beginning
    #[arg(long, value_name = "SHA256:…")]
    key: Option<String>,
    /// The set it becomes a member of, if Git has no EdgeDevice of its name
    #[arg(long)]
    set: Option<String>,
    /// A label it gets, if Git has no EdgeDevice of its name
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", value_parser = super::label)]
    labels: Vec<(String, String)>,
    /// Let it replace a device that has joined under this name with another key
    #[arg(long)]
    replace: bool,
}

impl Approve {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let Some(device) = self.device else {
            let restored: RestoredDevices = client.post("/v1/approve-restored", &()).await?;
            return taken_back(&restored);
        };
        let approval = Approval {
            device,
            key: self.key,
            set: self.set,
            labels: self.labels.into_iter().collect(),
            replace: self.replace,
        };
        let decided: Decided = client.post("/v1/approve", &approval).await?;
        done(&decided, "approved")
    }
}

/// Prints which devices were approved, and whose request still needs a decision.
fn taken_back(restored: &RestoredDevices) -> anyhow::Result<Answer> {
    for decided in &restored.approved {
        done(decided, "approved")?;
    }
    for Left { request, problem } in &restored.left {
        let key = print::fingerprint(&request.fingerprint);
        let device = &request.device;
        let help = match problem.help.as_str() {
            "" => String::new(),
            help => format!("; {help}"),
        };
        output::talk(&format!("{device} still waiting   {key}   {problem}{help}"));
    }
    if restored.approved.is_empty() && restored.left.is_empty() {
        output::talk(
            "no device with a certificate of this fleet is waiting; see: flotta get requests",
        );
    }
    let all = restored.left.is_empty();
    Ok(if all { Answer::Yes } else { Answer::No })
}

#[derive(Debug, Args)]
pub(crate) struct Deny {
    /// The device, as `flotta get requests` names it
    device: DeviceName,
    /// The key of the request, when several ask for one name
    #[arg(long, value_name = "SHA256:…")]
    key: Option<String>,
    /// Why; it is shown on the device
    #[arg(long, default_value = "")]
    reason: String,
}

impl Deny {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let denial = Denial {
            device: self.device,
            key: self.key,
            reason: self.reason,
        };
        let decided: Decided = client.post("/v1/deny", &denial).await?;
        done(&decided, "denied")
    }
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The device
    device: DeviceName,
}

impl Revoke {
    pub(crate) async fn run(self, client: &Client) -> anyhow::Result<Answer> {
        let revocation = Revocation {
            device: self.device,
        };
        let decided: Decided = client.post("/v1/revoke", &revocation).await?;
        if decided.fingerprint.is_empty() {
            output::talk(
                "the server was restored from a backup and knows no device of this name: every certificate for it is refused, \
                 and the device can join again only with a token",
            );
        }
        done(
            &decided,
            if decided.again {
                "was revoked already"
            } else {
                "revoked"
            },
        )
    }
}

/// Confirms like `kubectl`: the object, and what happened with it.
pub(super) fn done(decided: &Decided, what: &str) -> anyhow::Result<Answer> {
    let key = match decided.fingerprint.as_str() {
        "" => String::new(),
        hex => format!("   {}", print::fingerprint(hex)),
    };
    output::answer(&format!("{} {what}{key}\n", decided.device))?;
    Ok(Answer::Yes)
}
