use std::path::Path;

use flotta_renderer::Options;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::fixture::{DEADLINE, House, Machine, name};
use crate::source::Selection;

const DEVICE: &str = "apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDevice
metadata:
  name: shop-1
";
const BAD: &str = "kind: [";

/// A follower of a folder, which looks when it is woken and no sooner.
struct Following {
    source: tempfile::TempDir,
    _data: tempfile::TempDir,
    house: House,
    wake: Arc<Notify>,
    said: mpsc::UnboundedReceiver<Notice>,
    stop: watch::Sender<bool>,
    done: JoinHandle<()>,
}

impl Following {
    async fn new() -> Self {
        let (source, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(source.path(), DEVICE);
        let house = House::open(data.path());
        let (fleet, depot) = (Arc::clone(&house.fleet), house.depot.clone());
        let publisher = Publisher::open(fleet, depot, Options::default(), 0);
        let publisher = publisher.await.unwrap();
        let text = source.path().to_str().unwrap();
        let from = Source::parse(text, Selection::default(), data.path()).unwrap();
        let (store, index) = (house.store.clone(), Arc::clone(&house.index));
        let follower = Follower::new(from, publisher, store, index, Standing::default());
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
            house,
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
        let token = self.house.token(Some(device)).await;
        let request = Machine::new(device).request(Some(token));
        let from = "192.0.2.1".parse().unwrap();
        let joined = self
            .house
            .enroller
            .enrol(request, None, from, Timestamp::now());
        joined.await.unwrap();
    }

    fn in_release(&self, device: &str) -> bool {
        self.house.index.offered(&name(device)).is_some()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.done.await.unwrap();
    }
}

fn write(directory: &Path, content: &str) {
    std::fs::write(directory.join("fleet.yaml"), content).unwrap();
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
    // and the mended commit is taken up as ever
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
