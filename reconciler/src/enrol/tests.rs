use flotta_bundle::wire::Token;
use rusqlite::Connection;

use super::*;
use crate::fixture::{Fixture, TestDevice, name};
use crate::store::{NewToken, requests, revoked};

const FROM: &str = "192.0.2.1";

struct Bench {
    _data: tempfile::TempDir,
    fixture: Fixture,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        Self {
            fixture: Fixture::open(data.path()),
            _data: data,
            now: Timestamp::now(),
        }
    }

    async fn ask(
        &self,
        machine: &TestDevice,
        token: Option<Token>,
    ) -> Result<Enrolment, EnrolError> {
        let from = FROM.parse().unwrap();
        let enroller = &self.fixture.enroller;
        enroller
            .enrol(machine.request(token), None, from, self.now)
            .await
    }

    async fn approve(
        &self,
        device: &str,
        key: Option<&str>,
        replace: bool,
    ) -> Result<Device, EnrolError> {
        let target = Target {
            device: name(device),
            key: key.map(str::to_owned),
        };
        let approval = Approval {
            replace,
            ..Approval::default()
        };
        self.fixture
            .enroller
            .approve(target, approval, "ada", self.now)
            .await
    }

    async fn revoke(&self, device: &str) {
        let device = name(device);
        let revoked = self.fixture.enroller.revoke(&device, "ada", self.now);
        revoked.await.unwrap();
    }
}

fn joined(answer: &Result<Enrolment, EnrolError>) -> bool {
    matches!(answer, Ok(Enrolment::Approved { .. }))
}

fn waits(answer: &Result<Enrolment, EnrolError>) -> bool {
    matches!(answer, Ok(Enrolment::Pending { .. }))
}

#[tokio::test]
async fn a_token_ends_at_its_moment_and_lives_a_month_at_most() {
    let mut bench = Bench::new();
    let year = SignedDuration::from_hours(24 * 365);
    let enroller = &bench.fixture.enroller;
    let made = enroller.create_token(NewToken::default(), year, bench.now);
    let (token, ends) = made.await.unwrap();
    assert_eq!(ends.duration_since(bench.now), MAX_TTL);
    bench.now = ends;
    let late = bench.ask(&TestDevice::new("a"), Some(token.clone())).await;
    assert_eq!(late.unwrap_err().code().id, "FLT0407");
    bench.now = ends - SignedDuration::from_millis(1);
    assert!(joined(&bench.ask(&TestDevice::new("a"), Some(token)).await));
}

#[tokio::test]
async fn what_a_token_says_of_a_device_becomes_inventory() {
    let bench = Bench::new();
    let terms = NewToken {
        device: None,
        set: Some("tills".to_owned()),
        labels: [("site".to_owned(), "berlin".to_owned())].into(),
        ..NewToken::default()
    };
    let hour = SignedDuration::from_hours(1);
    let made = bench
        .fixture
        .enroller
        .create_token(terms.clone(), hour, bench.now);
    let (token, _) = made.await.unwrap();
    assert!(joined(&bench.ask(&TestDevice::new("a"), Some(token)).await));
    let inventory = bench.fixture.store.inventory().await.unwrap();
    assert_eq!(inventory[0].set, terms.set);
    assert_eq!(inventory[0].labels, terms.labels);
}

#[tokio::test]
async fn a_revoked_key_comes_back_by_a_token_alone() {
    let bench = Bench::new();
    let machine = TestDevice::new("a");
    let token = bench.fixture.token(None).await;
    assert!(joined(&bench.ask(&machine, Some(token.clone())).await));
    bench.revoke("a").await;
    assert!(bench.fixture.store.member(&name("a")).is_none());
    assert!(bench.fixture.store.inventory().await.unwrap().is_empty());
    assert_eq!(
        bench.ask(&machine, None).await.unwrap_err().code().id,
        "FLT0403"
    );
    assert_eq!(
        bench
            .ask(&machine, Some(token))
            .await
            .unwrap_err()
            .code()
            .id,
        "FLT0406"
    );
    let token = bench.fixture.token(None).await;
    assert!(joined(&bench.ask(&machine, Some(token)).await));
}

#[tokio::test]
async fn a_revoked_name_is_free_for_another_key() {
    let bench = Bench::new();
    let (first, second) = (TestDevice::new("a"), TestDevice::new("a"));
    let token = bench.fixture.token(None).await;
    bench.ask(&first, Some(token)).await.unwrap();
    bench.revoke("a").await;
    let token = bench.fixture.token(Some("a")).await;
    assert!(joined(&bench.ask(&second, Some(token)).await));
    let member = bench.fixture.store.member(&name("a")).unwrap();
    assert_eq!(member.key(), second.fingerprint());
}

#[tokio::test]
async fn approval_in_place_of_another_ends_that_one() {
    let bench = Bench::new();
    let (first, second) = (TestDevice::new("a"), TestDevice::new("a"));
    let token = bench.fixture.token(None).await;
    bench.ask(&first, Some(token)).await.unwrap();
    let before = bench.fixture.store.member(&name("a")).unwrap();
    assert!(waits(&bench.ask(&second, None).await));
    let taken = bench.approve("a", None, false).await.unwrap_err();
    let problem = taken.problem();
    assert_eq!(problem.code, "FLT0409");
    assert!(
        problem.help.contains("flotta approve --replace default/a"),
        "{problem:?}"
    );
    assert!(before.in_force());
    bench.approve("a", None, true).await.unwrap();
    assert!(!before.in_force());
    assert!(joined(&bench.ask(&second, None).await));
    // it is recorded as replaced, on disk and for the edge API
    let asked = bench.ask(&first, None).await;
    assert!(matches!(asked, Err(EnrolError::Revoked)), "{asked:?}");
    let store = &bench.fixture.store;
    assert!(store.is_revoked(&name("a"), &first.fingerprint()));
    assert!(!store.is_revoked(&name("a"), &second.fingerprint()));
}

#[tokio::test]
async fn who_was_let_in_without_a_set_gets_it_by_a_second_approval() {
    let bench = Bench::new();
    assert!(waits(&bench.ask(&TestDevice::new("a"), None).await));
    bench.approve("a", None, false).await.unwrap();
    let inventory = bench.fixture.store.inventory_changes();
    let member = bench.fixture.store.member(&name("a")).unwrap();
    let approve = async |set: Option<&str>, labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let approval = Approval {
            set: set.map(str::to_owned),
            labels: labels.collect(),
            replace: false,
        };
        let target = Target {
            device: name("a"),
            key: None,
        };
        let enroller = &bench.fixture.enroller;
        let approved = enroller.approve(target, approval, "ada", bench.now);
        approved.await.unwrap()
    };
    approve(Some("shops"), &[]).await;
    assert!(inventory.has_changed().unwrap(), "a release is made of it");
    approve(None, &[("site", "berlin")]).await;
    let has = bench.fixture.store.inventory().await.unwrap().remove(0);
    assert_eq!(has.set.as_deref(), Some("shops"));
    assert_eq!(has.labels["site"], "berlin");
    // an approval without terms changes nothing, and no connection was closed
    assert_eq!(approve(None, &[]).await.set, has.set);
    assert!(member.in_force());
    let events = bench.fixture.events().await;
    let given = events.iter().filter(|event| event.0 == "Approved");
    assert_eq!(given.count(), 2, "{events:?}");
}

impl Bench {
    /// Asks as a device with a certificate of this fleet that the store does not know.
    async fn come_back(&self, machine: &TestDevice) -> Result<Enrolment, EnrolError> {
        let certified = Certified {
            device: machine.name.clone(),
            key: machine.fingerprint(),
        };
        let from = FROM.parse().unwrap();
        let asked = machine.request(None);
        let enroller = &self.fixture.enroller;
        enroller
            .enrol(asked, Some(&certified), from, self.now)
            .await
    }

    async fn restore(&self) {
        let store = &self.fixture.store;
        store.set_meta("restored", "1".to_owned()).await.unwrap();
    }
}

#[tokio::test]
async fn who_joined_after_the_backup_is_revoked_by_its_name() {
    let bench = Bench::new();
    let (thief, heir) = (TestDevice::new("a"), TestDevice::new("a"));
    assert!(waits(&bench.come_back(&thief).await));
    let notes = bench.fixture.store.requests().await.unwrap();
    assert!(!notes[0].note.contains("backup"), "{notes:?}");
    let revoke = async || {
        let enroller = &bench.fixture.enroller;
        enroller.revoke(&name("a"), "ada", bench.now).await
    };
    // without a restore, an unknown name is a typing error
    assert!(matches!(revoke().await, Err(EnrolError::NoDevice(_))));
    bench.restore().await;
    assert!(waits(&bench.come_back(&thief).await));
    let notes = bench.fixture.store.requests().await.unwrap();
    assert!(
        notes[0].note.contains("joined after the backup?"),
        "{notes:?}"
    );

    assert_eq!(revoke().await.unwrap(), (None, true));
    assert_eq!(revoke().await.unwrap(), (None, false));
    assert_eq!(bench.fixture.store.requests().await.unwrap(), []);
    assert!(
        bench
            .fixture
            .store
            .is_revoked(&name("a"), &thief.fingerprint())
    );
    let asked = bench.come_back(&thief).await;
    assert!(matches!(asked, Err(EnrolError::Revoked)), "{asked:?}");

    // the name is given to another machine: the first one stays revoked
    let token = bench.fixture.token(Some("a")).await;
    assert!(joined(&bench.ask(&heir, Some(token)).await));
    bench.revoke("a").await;
    assert!(
        bench
            .fixture
            .store
            .is_revoked(&name("a"), &thief.fingerprint())
    );
    let asked = bench.come_back(&thief).await;
    assert!(matches!(asked, Err(EnrolError::Revoked)), "{asked:?}");
}

#[tokio::test]
async fn a_request_by_a_barred_name_is_not_approved() {
    let bench = Bench::new();
    let thief = TestDevice::new("a");
    assert!(waits(&bench.come_back(&thief).await));
    let key = thief.fingerprint();
    let request = bench.fixture.store.request(key).await.unwrap().unwrap();
    // the request was made before the name was barred
    let bar = move |connection: &Connection| {
        revoked::bar(connection, &request.device, Timestamp::now())?;
        assert_eq!(requests::find(connection, &request.key)?, None);
        requests::put(connection, &request)?;
        Ok::<_, EnrolError>(())
    };
    bench.fixture.store.write(bar, |()| {}).await.unwrap();
    let approved = bench.approve("a", None, false).await;
    assert!(matches!(approved, Err(EnrolError::Revoked)), "{approved:?}");
    let in_git = [name("a")].into();
    let enroller = &bench.fixture.enroller;
    let restored = enroller.approve_restored(&in_git, "ada", bench.now);
    assert_eq!(restored.await.unwrap().approved, []);
}

#[tokio::test]
async fn a_device_of_this_fleet_that_was_turned_away_stays_so() {
    let bench = Bench::new();
    let (ours, stranger) = (TestDevice::new("a"), TestDevice::new("b"));
    assert!(waits(&bench.come_back(&ours).await));
    assert!(waits(&bench.ask(&stranger, None).await));
    for device in ["a", "b"] {
        let target = Target {
            device: name(device),
            key: None,
        };
        let denied = bench
            .fixture
            .enroller
            .deny(target, "stolen", "ada", bench.now);
        denied.await.unwrap();
    }
    let month = SignedDuration::from_hours(24 * 30);
    bench.fixture.store.purge(bench.now + month).await.unwrap();
    assert!(waits(&bench.ask(&stranger, None).await));
    let reason = "stolen".to_owned();
    let asked = bench.come_back(&ours).await.unwrap();
    assert_eq!(asked, Enrolment::Denied { reason });
}

#[tokio::test]
async fn the_certificate_of_who_was_replaced_is_offered_no_more() {
    let bench = Bench::new();
    let (first, second) = (TestDevice::new("a"), TestDevice::new("a"));
    let state = async || {
        let state = bench.fixture.enroller.state(first.fingerprint()).await;
        state.unwrap()
    };
    assert!(waits(&bench.ask(&first, None).await));
    bench.approve("a", None, false).await.unwrap();
    assert!(matches!(state().await, Some(Enrolment::Approved { .. })));
    assert!(waits(&bench.ask(&second, None).await));
    bench.approve("a", None, true).await.unwrap();
    assert_eq!(state().await, None);
}

#[tokio::test]
async fn of_several_requests_the_key_says_which() {
    let bench = Bench::new();
    let (first, second) = (TestDevice::new("a"), TestDevice::new("a"));
    for machine in [&first, &second] {
        assert!(waits(&bench.ask(machine, None).await));
    }
    let error = bench.approve("a", None, false).await.unwrap_err();
    let problem = error.problem();
    assert_eq!(problem.code, "FLT0418");
    assert!(
        problem.help.contains("flotta approve default/a --key"),
        "{problem:?}"
    );
    let shown = crate::keys::fingerprint_text(&second.fingerprint());
    let error = bench
        .approve("a", Some(&shown[..12]), false)
        .await
        .unwrap_err();
    assert!(matches!(error, EnrolError::ShortKey));
    // a key was given, so the error is not that several match
    assert_eq!(error.problem().code, "FLT0414");
    assert!(error.problem().help.contains("flotta get requests"));
    let nobody = bench.approve("nobody", None, false).await.unwrap_err();
    assert_eq!(nobody.problem().help, "to list them: flotta get requests");
    let approved = bench.approve("a", Some(&shown), false).await.unwrap();
    assert_eq!(approved.key, second.fingerprint());
    assert!(matches!(
        bench.approve("b", None, false).await,
        Err(EnrolError::NoRequest(_))
    ));
}

#[tokio::test]
async fn a_key_that_joined_elsewhere_meanwhile_is_not_approved() {
    let bench = Bench::new();
    let machine = TestDevice::new("a");
    assert!(waits(&bench.ask(&machine, None).await));
    let token = bench.fixture.token(Some("b")).await;
    assert!(joined(&bench.ask(&machine.renamed("b"), Some(token)).await));
    // joining removed the request
    assert!(bench.approve("a", None, false).await.is_err());
}

#[tokio::test]
async fn the_sealing_key_must_be_vouched_for() {
    let bench = Bench::new();
    let machine = TestDevice::new("a");
    let ask = |change: &dyn Fn(&mut EnrolmentRequest)| {
        let mut request = machine.request(None);
        change(&mut request);
        let enroller = bench.fixture.enroller.clone();
        let now = bench.now;
        async move {
            enroller
                .enrol(request, None, FROM.parse().unwrap(), now)
                .await
        }
    };
    let zero = data_encoding::BASE64.encode(&[0; 32]);
    let short = data_encoding::BASE64.encode(&[7; 31]);
    let others = TestDevice::new("a").request(None).sealing_proof;
    let renamed = machine.renamed("b").request(None).sealing_proof;
    for asked in [
        ask(&|request| request.sealing_key.clone_from(&zero)).await,
        ask(&|request| request.sealing_key.clone_from(&short)).await,
        ask(&|request| request.sealing_proof.clone_from(&others)).await,
        ask(&|request| request.sealing_proof.clone_from(&renamed)).await,
        ask(&|request| request.sealing_proof.clear()).await,
    ] {
        assert!(matches!(asked, Err(EnrolError::Sealing)), "{asked:?}");
    }
    assert_eq!(bench.fixture.store.pending().await.unwrap(), 0);
}

#[tokio::test]
async fn what_a_stranger_says_of_itself_is_harmless() {
    let bench = Bench::new();
    let mut request = TestDevice::new("a").request(None);
    request.hardware.model = format!("\x1b[2J{}", "x".repeat(4000));
    let asked = bench
        .fixture
        .enroller
        .enrol(request, None, FROM.parse().unwrap(), bench.now);
    asked.await.unwrap();
    let model = &bench.fixture.store.requests().await.unwrap()[0]
        .hardware
        .model;
    assert!(
        model.starts_with("?[2J") && model.chars().count() == 128,
        "{model}"
    );
}

#[tokio::test]
async fn one_network_cannot_fill_the_queue() {
    let bench = Bench::new();
    // as many rows as one address may have, without as many signatures
    let proto = TestDevice::new("a");
    bench.ask(&proto, None).await.unwrap();
    let request = bench
        .fixture
        .store
        .request(proto.fingerprint())
        .await
        .unwrap()
        .unwrap();
    let fill = move |connection: &Connection| {
        for at in 1..MAX_PENDING_EACH {
            let key = Digest::of(&at.to_le_bytes());
            requests::put(
                connection,
                &JoinRequest {
                    key,
                    ..request.clone()
                },
            )?;
        }
        Ok::<_, EnrolError>(())
    };
    bench.fixture.store.write(fill, |()| {}).await.unwrap();
    let full = bench.ask(&TestDevice::new("b"), None).await.unwrap_err();
    assert_eq!(full.code().id, "FLT0413");
    // a pending request is not refused, and neither is another network
    assert!(waits(&bench.ask(&proto, None).await));
    let elsewhere = "198.51.100.7".parse().unwrap();
    let other = TestDevice::new("c").request(None);
    let asked = bench
        .fixture
        .enroller
        .enrol(other, None, elsewhere, bench.now)
        .await;
    assert!(waits(&asked));
}
