//! A device with the real protocol, without a machine.

use std::path::Path;

use flotta_agent::clock::Clock;
use flotta_agent::enrol::Join;
use flotta_agent::identity::{Certificate, Identity};
use flotta_agent::pull::{Client, Proxies, Session};
use flotta_bundle::DeviceName;
use flotta_bundle::verify::{Accepted, Memory, verify_offer};
use flotta_bundle::wire::Hardware;
use jiff::Timestamp;

use super::{Fixture, stderr};

/// A joined device.
pub struct Device {
    pub name: DeviceName,
    pub client: Client,
    pub memory: Memory,
}

impl Device {
    pub async fn join(fixture: &Fixture, name: &str, folder: &Path) -> Self {
        let output = fixture.flotta(&["token", "create", name]).await;
        assert!(output.status.success(), "{}", stderr(&output));
        let join = Join::parse(&output.stdout, "join".as_ref(), None).unwrap();
        let (identity, _) = Identity::open_or_make(folder).unwrap();
        let clock = Clock::new(Timestamp::UNIX_EPOCH);
        let hardware = Hardware::default();
        let client = join.client(&clock, &Proxies::default()).unwrap();
        let asked = join.ask(&identity, &hardware, &client, None, || {});
        let (name, pem) = asked.await.unwrap().unwrap();
        let chain = Certificate::parse(&pem).unwrap().chain;
        Self {
            name,
            client: client.identified(chain, identity.private_key()).unwrap(),
            memory: Memory {
                trust: join.trust,
                highest: None,
            },
        }
    }

    /// The offer that the device accepts now; none when the server gives nothing valid.
    pub async fn accepted(&self, session: &Session) -> Option<Accepted> {
        let desired = session.desired(1, None, true).await.ok()??;
        verify_offer(&desired.offer, &self.name, &self.memory).ok()
    }
}
