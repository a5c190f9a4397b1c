use std::path::Path;

use flotta_renderer::Options;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::fixture::{DEADLINE, Fixture, TestDevice, name};
use crate::source::Selection;

const DEVICE: &str = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDevice
metadata:
  name: shop-1
";
const BAD: &str = "kind: EdgeDevice: [";

/// A follower of a folder that polls only when it is woken.
struct Following {
    source: tempfile::TempDir,
    _data: tempfile::TempDir,
    fixture: Fixture,
    wake: Arc<Notify>,
    said: mpsc::UnboundedReceiver<Notice>,
    stop: watch::Sender<bool>,
    done: JoinHandle<()>,
}

async fn follower(fixture: &Fixture, source: &Path, data: &Path) -> Follower {
    let (fleet, depot) = (Arc::clone(&fixture.fleet), fixture.depot.clone());
    let publisher = Publisher::open(fleet, depot, Options::default(), 0);
    let publisher = publisher.await.unwrap();
    let from = Source::parse(source.to_str().unwrap(), Selection::default(), data).unwrap();
    let (store, index) = (fixture.store.clone(), Arc::clone(&fixture.index));
    Follower::new(from, publisher, store, index, ServerState::default())
}

impl Following {
    async fn new() -> Self {
        let (source, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(source.path(), DEVICE);
        let fixture = Fixture::open(data.path());
        let follower = follower(&fixture, source.path(), data.path()).await;
        let (wake, (stop, stopped)) = (Arc::new(Notify::new()), watch::channel(false));
        let (say, said) = mpsc::unbounded_channel();
        let hour = Duration::from_secs(3600);
        let run = follower.run(hour, Arc::clone(&wake), stopped, move |notice: &Notice| {
            say.send(notice.clone()).unwrap();
        });
        Self {
            done: tokio::spawn(run),
            source,
            _data: data,
            fixture,
            wake,
            said,
            stop,
        }
    }

    async fn says(&mut self) -> Notice {
        let said = tokio::time::timeout(DEADLINE, self.said.recv()).await;
        said.unwrap().unwrap()
    }

    async fn join(&self, device: &str) {
        let token = self.fixture.token(Some(device)).await;
        let request = TestDevice::new(device).request(Some(token));
        let from = "192.0.2.1".parse().unwrap();
        let joined = self
            .fixture
            .enroller
            .enrol(request, None, from, Timestamp::now());
        joined.await.unwrap();
    }

    fn in_release(&self, device: &str) -> bool {
        self.fixture.index.offered(&name(device)).is_some()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.done.await.unwrap();
    }
}

fn write(directory: &Path, content: &str) {
    // by rename, because a round may read the file at any time
    let whole = directory.with_extension("new");
    std::fs::write(&whole, content).unwrap();
    std::fs::rename(whole, directory.join("fleet.yaml")).unwrap();
}

#[tokio::test]
async fn who_joins_while_a_commit_is_refused_is_in_the_next_release() {
    let mut following = Following::new().await;
    assert!(matches!(following.says().await, Notice::Published { .. }));
    write(following.source.path(), BAD);
    following.wake.notify_one();
    assert!(matches!(following.says().await, Notice::Refused { .. }));
    following.join("shop-2").await;
    let said = following.says().await;
    assert!(
        matches!(said, Notice::Published { sequence: 2, .. }),
        "{said}"
    );
    assert!(following.in_release("shop-1") && following.in_release("shop-2"));
    // the corrected commit is published as usual
    write(following.source.path(), &DEVICE.replace("shop-1", "shop-3"));
    following.wake.notify_one();
    assert!(matches!(
        following.says().await,
        Notice::Published { sequence: 3, .. }
    ));
    assert!(following.in_release("shop-3") && !following.in_release("shop-1"));
    following.stop().await;
}

#[tokio::test]
async fn a_held_commit_is_judged_again_when_whom_it_was_held_for_is_not_a_member_any_more() {
    let mut following = Following::new().await;
    let workload = "---\napiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata: {name: web}\nspec: {type: pod, device: shop-1, pod: {spec: {containers: [{name: a, image: r/x:1}]}}}\n";
    assert!(matches!(following.says().await, Notice::Published { .. }));
    following.join("shop-1").await;
    write(following.source.path(), &format!("{DEVICE}{workload}"));
    following.wake.notify_one();
    let said = following.says().await;
    assert!(matches!(said, Notice::Published { .. }), "{said}");
    write(following.source.path(), DEVICE);
    following.wake.notify_one();
    let said = following.says().await;
    assert!(matches!(said, Notice::Held { .. }), "{said}");
    // a joining device does not change that, is in the next release at once, and nothing is reported twice
    following.join("shop-2").await;
    let said = following.says().await;
    assert!(
        matches!(said, Notice::Published { sequence: 3, .. }),
        "{said}"
    );
    let gone = name("shop-1");
    let enroller = &following.fixture.enroller;
    let revoked = enroller.revoke(&gone, "ada", Timestamp::now());
    revoked.await.unwrap();
    let said = following.says().await;
    assert!(
        matches!(said, Notice::Published { sequence: 4, .. }),
        "{said}"
    );
    following.stop().await;
}

#[tokio::test]
async fn a_commit_that_could_not_be_noted_is_not_lost() {
    let (source, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(source.path(), DEVICE);
    let fixture = Fixture::open(data.path());
    let mut follower = follower(&fixture, source.path(), data.path()).await;
    let mut checkout = follower.source.poll().await.unwrap().unwrap();
    checkout.ancestry = Some(("0".repeat(40), Ancestry::Unrelated));
    let status = rusqlite::Connection::open(data.path().join("status.db")).unwrap();
    status
        .execute_batch("ALTER TABLE events RENAME TO away")
        .unwrap();
    let failed = follower.round(Some(checkout), None, &|_: &Notice| {}).await;
    assert!(matches!(failed, Err(RoundError::Store(_))), "{failed:?}");
    status
        .execute_batch("ALTER TABLE away RENAME TO events")
        .unwrap();
    // the source has nothing new
    assert!(follower.source.poll().await.unwrap().is_none());
    let next = follower.round(None, None, &|_: &Notice| {}).await;
    next.unwrap();
    assert_eq!(follower.sequence(), Some(1));
    let releases = fixture.store.releases(1).await.unwrap();
    assert!(!releases[0].release.details.notes.is_empty());
}

#[tokio::test]
async fn who_joins_while_the_source_cannot_be_read_is_in_the_next_release() {
    let mut following = Following::new().await;
    assert!(matches!(following.says().await, Notice::Published { .. }));
    let away = following.source.path().with_extension("away");
    std::fs::rename(following.source.path(), &away).unwrap();
    following.wake.notify_one();
    assert!(matches!(following.says().await, Notice::Failed { .. }));
    following.join("shop-2").await;
    let said = following.says().await;
    assert!(matches!(said, Notice::Published { .. }), "{said}");
    assert!(following.in_release("shop-2"));
    std::fs::rename(&away, following.source.path()).unwrap();
    following.wake.notify_one();
    assert!(matches!(following.says().await, Notice::Recovered));
    following.stop().await;
}
