use flotta_bundle::code;
use flotta_bundle::crypto::SigningKey;
use flotta_bundle::envelope::Envelope;
use flotta_bundle::release;
use flotta_renderer::{Batch, Finding};

use super::*;
use crate::depot::Stored;
use crate::keys::FirstStart;

const DEVICE: &str = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDevice
metadata:
  name: shop-1
";
const BAD: &str = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDevice
metadata:
  name: shop-1
spek: {}
";

fn input(content: &str) -> Arc<Input> {
    let batch = Batch::of_file("device.yaml", content.as_bytes());
    Arc::new(Input::from_iter([batch]))
}

fn revision(commit: &str) -> Revision {
    Revision {
        source: "directory".to_owned(),
        commit: commit.to_owned(),
        subject: "a commit".to_owned(),
        inventory: None,
    }
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn joined(name: &str) -> InventoryDevice {
    InventoryDevice {
        device: name.parse().unwrap(),
        set: None,
        labels: BTreeMap::new(),
    }
}

struct Fixture {
    data: tempfile::TempDir,
    fleet: Arc<Fleet>,
}

impl Fixture {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let first = FirstStart {
            fleet: None,
            names: vec!["localhost".to_owned()],
            now: now(),
        };
        let (fleet, _) = Fleet::open_or_create(data.path(), &first).unwrap();
        Self {
            data,
            fleet: Arc::new(fleet),
        }
    }

    /// A publisher, opened as at a start of the server.
    async fn publisher(&self, floor: u64) -> Publisher {
        let depot = Depot::local(&self.data.path().join("depot")).unwrap();
        let fleet = Arc::clone(&self.fleet);
        Publisher::open(fleet, depot, Options::default(), floor)
            .await
            .unwrap()
    }
}

async fn publish(publisher: &mut Publisher, commit: &str, content: &str) -> Outcome {
    let (input, revision) = (input(content), revision(commit));
    publisher
        .publish(input, revision, Vec::new(), &Decisions::default(), now())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_commit_becomes_a_signed_release_and_a_restart_makes_nothing_new() {
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(0).await;
    let Outcome::Published { release, .. } = publish(&mut publisher, "c1", DEVICE).await else {
        panic!("not published");
    };
    assert_eq!(release.release.sequence, 1);
    assert_eq!(release.leaves.len(), 1);
    assert!(matches!(
        publish(&mut publisher, "c1", DEVICE).await,
        Outcome::Unchanged
    ));

    let mut again = fixture.publisher(0).await;
    assert_eq!(again.current().unwrap().release, release.release);
    assert!(matches!(
        publish(&mut again, "c1", DEVICE).await,
        Outcome::Unchanged
    ));
    let Outcome::Published { release, .. } = publish(&mut again, "c2", DEVICE).await else {
        panic!("not published");
    };
    assert_eq!(release.release.sequence, 2);
    for leaf in release.leaves.values() {
        let depot = Depot::local(&fixture.data.path().join("depot")).unwrap();
        assert!(depot.blob(&leaf.manifest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_bad_commit_changes_nothing() {
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(0).await;
    publish(&mut publisher, "c1", DEVICE).await;
    let Outcome::Refused(refusal) = publish(&mut publisher, "c2", BAD).await else {
        panic!("not refused");
    };
    assert_eq!(refusal.to_string(), "1 error (FLT0103 device.yaml:5:1)");
    assert_eq!(publisher.current().unwrap().release.sequence, 1);
    assert!(matches!(
        publish(&mut publisher, "c1", DEVICE).await,
        Outcome::Unchanged
    ));
}

#[tokio::test]
async fn who_joined_without_being_in_git_is_part_of_the_release() {
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(0).await;
    publish(&mut publisher, "c1", DEVICE).await;

    let in_git = vec![joined("default/shop-1")];
    let outcome = publisher
        .publish(
            input(DEVICE),
            revision("c1"),
            in_git,
            &Decisions::default(),
            now(),
        )
        .await
        .unwrap();
    assert!(
        matches!(outcome, Outcome::Unchanged),
        "a device of Git is no inventory"
    );

    let new = vec![joined("default/shop-2"), joined("default/shop-1")];
    let outcome = publisher
        .publish(
            input(DEVICE),
            revision("c1"),
            new,
            &Decisions::default(),
            now(),
        )
        .await
        .unwrap();
    let Outcome::Published { release, .. } = outcome else {
        panic!("not published");
    };
    assert_eq!(release.leaves.len(), 2);
    assert!(release.release.revision.inventory.is_some());
}

#[tokio::test]
async fn a_release_that_nothing_follows_is_signed_anew_in_time() {
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(0).await;
    publish(&mut publisher, "c1", DEVICE).await;
    for (days, published) in [(59, false), (61, true)] {
        let later = now() + SignedDuration::from_hours(24 * days);
        let outcome = publisher
            .publish(
                input(DEVICE),
                revision("c1"),
                Vec::new(),
                &Decisions::default(),
                later,
            )
            .await
            .unwrap();
        assert_eq!(
            matches!(outcome, Outcome::Published { .. }),
            published,
            "{days} days"
        );
    }
}

#[tokio::test]
async fn a_lost_depot_does_not_bring_a_sequence_back() {
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(41).await;
    let Outcome::Published { release, .. } = publish(&mut publisher, "c1", DEVICE).await else {
        panic!("not published");
    };
    assert_eq!(release.release.sequence, 42);
}

#[tokio::test]
async fn a_depot_that_someone_else_wrote_is_not_served() {
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(0).await;
    publish(&mut publisher, "c1", DEVICE).await;
    let depot = Depot::local(&fixture.data.path().join("depot")).unwrap();
    let stored = depot.release(1).await.unwrap().unwrap();
    let role = &fixture.fleet.trust_root().release;
    assert!(Published::open(&stored, role).is_ok());

    let (key, _) = SigningKey::generate().unwrap();
    let payload = stored
        .envelope
        .verify(release::PAYLOAD_TYPE, &role.keys, 1)
        .unwrap();
    let forged = Stored {
        envelope: Envelope::sign(release::PAYLOAD_TYPE, &payload, &[&key]),
        ..stored.clone()
    };
    assert!(matches!(
        Published::open(&forged, role),
        Err(OpenError::Signature(_))
    ));
    let fewer = Stored {
        leaves: Vec::new(),
        ..stored
    };
    assert!(matches!(
        Published::open(&fewer, role),
        Err(OpenError::Leaves)
    ));
}

#[tokio::test]
async fn devices_are_described_by_what_rendering_found() {
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(0).await;
    let object = |kind: &str, name: &str, rest: &str| {
        format!(
            "---\napiVersion: management.project-flotta.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n{rest}\n"
        )
    };
    let content = object("EdgeDevice", "shop-1", "")
        + &object("EdgeDevice", "shop-2", "")
        + &object("EdgeDeviceSet", "base", "spec: {selector: {}, priority: 0}")
        + &object(
            "EdgeDeviceSet",
            "shops",
            "spec: {selector: {}, priority: 10}",
        )
        + &object(
            "EdgeWorkload",
            "web",
            "spec: {type: pod, device: shop-2, pod: {spec: {containers: [{name: a, image: r/x:1, envFrom: [{configMapRef: {name: none}}]}]}}}",
        );
    publish(&mut publisher, "c1", &content).await;
    let described = publisher.described();
    let sets = &described[&"shop-1".parse().unwrap()].sets;
    assert_eq!(sets, &["shops", "base"], "the strongest first");
    // held back by a missing ConfigMap, but in Git
    assert!(described.contains_key(&"shop-2".parse().unwrap()));
}

#[tokio::test]
async fn what_could_not_be_stored_is_not_taken_up() {
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(0).await;
    publish(&mut publisher, "c1", DEVICE).await;
    let releases = fixture.data.path().join("depot/releases");
    let away = fixture.data.path().join("away");
    std::fs::rename(&releases, &away).unwrap();
    std::fs::write(&releases, "").unwrap();
    let other = DEVICE.replace("shop-1", "shop-2");
    let mut again = async || {
        let (members, decisions) = (vec![joined("default/shop-1")], Decisions::default());
        let publishing =
            publisher.publish(input(&other), revision("c2"), members, &decisions, now());
        let published = publishing.await;
        let known = publisher.inventory.clone().unwrap();
        let described = publisher
            .described()
            .contains_key(&"default/shop-2".parse().unwrap());
        (published, known.len(), described)
    };
    let (failed, known, described) = again().await;
    assert!(matches!(failed, Err(PublishError::Depot(_))), "{failed:?}");
    assert_eq!((known, described), (0, false));
    std::fs::remove_file(&releases).unwrap();
    std::fs::rename(&away, &releases).unwrap();
    let (published, known, described) = again().await;
    assert!(matches!(published, Ok(Outcome::Published { .. })));
    assert_eq!((known, described), (1, true));
}

#[test]
fn a_notice_is_one_line_whatever_a_commit_or_git_says() {
    let place = flotta_renderer::Place::file("a\nready  all is well\u{1b}[2K.yaml");
    let refusal = CommitErrors {
        errors: vec![Finding::error(code::NOT_YAML, place, "x")],
    };
    let refused = Notice::Refused {
        label: "main@4f2c91a".to_owned(),
        refusal: refusal.to_string(),
        in_force: None,
    };
    let failed = Notice::Failed {
        source: true,
        message: "git fetch: remote: \u{1b}]0;x\u{7}\nready".to_owned(),
        in_force: Some(1),
    };
    for notice in [refused, failed] {
        let text = notice.to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

#[tokio::test]
async fn what_devices_have_accepted_is_passed_without_another_commit() {
    let sequence = |outcome| match outcome {
        Outcome::Published { release, .. } => Some(release.release.sequence),
        _ => None,
    };
    let fixture = Fixture::new();
    let mut publisher = fixture.publisher(0).await;
    let say = async |publisher: &mut Publisher| sequence(publish(publisher, "c1", DEVICE).await);
    assert_eq!(say(&mut publisher).await, Some(1));
    // the release in force is high enough
    assert!(!publisher.raise(1));
    assert_eq!(say(&mut publisher).await, None);
    assert!(publisher.raise(48));
    assert_eq!(say(&mut publisher).await, Some(48));
    assert!(!publisher.raise(48) && !publisher.raise(3));
    assert_eq!(say(&mut publisher).await, None);
    // with a depot that is behind, no sequence is used twice
    let mut restored = fixture.publisher(60).await;
    assert_eq!(say(&mut restored).await, Some(61));
}

#[tokio::test]
async fn a_release_by_a_clock_that_was_ahead_is_signed_anew_and_none_while_the_clock_is_in_doubt() {
    for offset in crate::keys::tests::offsets() {
        let fixture = Fixture::new();
        let clock = fixture.fleet.clock();
        let mut publisher = fixture.publisher(0).await;
        let at = async |publisher: &mut Publisher, commit: &str, now| {
            let (input, revision) = (input(DEVICE), revision(commit));
            let decisions = Decisions::default();
            publisher
                .publish(input, revision, Vec::new(), &decisions, now)
                .await
        };
        let wrong = now() + offset;
        let made = at(&mut publisher, "c1", wrong).await.unwrap();
        assert!(matches!(made, Outcome::Published { .. }));
        // the clock is right; the commit is the same
        let again = at(&mut publisher, "c1", now()).await.unwrap();
        let issued = publisher.current().unwrap().release.issued;
        let is_off = offset > SKEW || offset < RENEW_BEFORE - VALIDITY;
        assert_eq!(
            matches!(again, Outcome::Published { .. }),
            is_off,
            "{offset:#}"
        );
        assert_eq!(issued, if is_off { now() } else { wrong });
        assert!(!publisher.renewal_due(now()));

        // now the clock is wrong, and that is noticed
        clock.look(now(), &[], 0);
        clock.look(wrong, &[], 0);
        let is_doubted = clock.check().is_err();
        assert_eq!(
            is_doubted,
            offset > SKEW * 24 * 30 || offset < -SKEW,
            "{offset:#}"
        );
        let sequence = publisher.current().unwrap().release.sequence;
        let next = at(&mut publisher, "c2", wrong).await;
        if is_doubted {
            assert!(matches!(next, Err(PublishError::Clock(_))), "{next:?}");
            let same = at(&mut publisher, "c1", wrong).await.unwrap();
            assert!(matches!(same, Outcome::Unchanged), "{same:?}");
            assert_eq!(publisher.current().unwrap().release.sequence, sequence);
            clock.look(now(), &[], 0);
            let next = at(&mut publisher, "c2", now()).await.unwrap();
            assert!(matches!(next, Outcome::Published { .. }));
        }
    }
}
