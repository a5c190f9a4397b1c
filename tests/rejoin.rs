//! A device that joins again while its agent runs, against a real server: the agent keeps asking until a person decides, and
//! keeps its identity until then.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{DEADLINE, Fixture, device, eventually, stderr, stdout};
use flotta_agent::clock::Clock;
use flotta_agent::config::Config;
use flotta_agent::enrol::{Join, reset};
use flotta_agent::identity::{self, Certificate, Identity};
use flotta_agent::ledger::Ledger;
use flotta_bundle::wire::Hardware;
use jiff::Timestamp;

async fn join_file(fixture: &Fixture, arguments: &[&str]) -> Join {
    let output = fixture
        .flotta(&[&["token", "create"], arguments].concat())
        .await;
    assert!(output.status.success(), "{}", stderr(&output));
    let name = Some("shop-1".parse().unwrap());
    Join::parse(&output.stdout, "join".as_ref(), name).unwrap()
}

#[tokio::test]
async fn a_new_identity_is_asked_for_until_a_person_decides() {
    let fixture = Fixture::new();
    fixture.commit("a.yaml", &device("shop-1"));
    let server = fixture.start().await;
    server.released(1).await;
    let folder = fixture.path().join("device");
    let config = Config {
        state: folder.join("state"),
        runtime: folder.join("run"),
        root: folder,
        ..Config::default()
    };
    config.make_state().unwrap();
    let clock = Clock::new(Timestamp::UNIX_EPOCH);
    let join = join_file(&fixture, &["shop-1"]).await;
    let (old, _) = Identity::open_or_make(&config.identity()).unwrap();
    let client = join.client(&clock, &config.proxies).unwrap();
    let hardware = Hardware::default();
    let asked = join.ask(&old, &hardware, &client, None, || {});
    let (name, pem) = asked.await.unwrap().unwrap();
    let mut ledger = Ledger::open(&config.state).unwrap();
    let (joined, _) = join.keep(&old, &mut ledger, name, &pem).unwrap();

    for decision in [
        &["deny", "shop-1", "--reason", "not today"][..],
        &["approve", "shop-1", "--replace"],
    ] {
        let ask = join_file(&fixture, &["--ask"]).await;
        let new = reset::prepare(&config, &ask, false).unwrap();
        let key = new.fingerprint().hex();
        let decide = async {
            eventually("the request", || async {
                let requests = fixture.flotta(&["get", "requests", "-o", "json"]).await;
                stdout(&requests).contains(&key).then_some(())
            })
            .await;
            // until then it keeps its identity
            reset::switch(&config).unwrap();
            let now = Identity::open(&config.identity()).unwrap();
            assert_eq!(now.fingerprint(), old.fingerprint());
            let output = fixture.flotta(decision).await;
            assert!(output.status.success(), "{}", stderr(&output));
        };
        let mut again = reset::switching();
        let asking = async {
            let asking = reset::ask(&config, &clock, &mut again);
            tokio::time::timeout(DEADLINE * 4, asking).await.unwrap()
        };
        let (decided, ()) = tokio::join!(asking, decide);
        reset::switch(&config).unwrap();
        assert!(!config.next().exists());
        let now = Identity::open(&config.identity()).unwrap();
        assert_eq!(
            identity::joined(&config.identity()).unwrap(),
            Some(joined.clone())
        );
        match decided {
            reset::Decision::Denied(error) => {
                assert_eq!(decision[0], "deny");
                assert!(error.to_string().contains("not today"), "{error}");
                assert_eq!(now.fingerprint(), old.fingerprint());
            }
            reset::Decision::Approved => {
                assert_eq!(decision[0], "approve");
                assert_eq!(now.fingerprint(), new.fingerprint());
                // the server serves the new keys, and no longer the old ones
                let chain = now.certificate().unwrap().chain;
                let client = client.identified(chain, now.private_key()).unwrap();
                let session = client.connect().await.unwrap();
                session.desired(1, None, false).await.unwrap().unwrap();
                let chain = Certificate::parse(&pem).unwrap().chain;
                let client = client.identified(chain, old.private_key()).unwrap();
                let refused = async {
                    let session = client.connect().await?;
                    session.desired(1, None, false).await
                };
                assert!(refused.await.is_err());
            }
        }
    }
    server.stop().await;
}
