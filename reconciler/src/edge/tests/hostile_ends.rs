//! A connection outlives neither its certificate nor its device's identity.

use flotta_bundle::Digest;
use jiff::{SignedDuration, Timestamp};

use super::raw::{
    Dialler, END_HEADERS, END_STREAM, H1, H2, PREFACE, Raw, begins, piece, used, uses,
};
use super::world::{Identity, World, certified, key};
use crate::fixture::{TestDevice, bundle, eventually};
use crate::rate::CONNECTIONS_EACH;

struct Scene {
    world: World,
    honest: super::world::Client,
    /// A file that the device may read.
    path: String,
}

async fn scene() -> Scene {
    let world = World::new().await;
    let content = vec![b'x'; 3_000_000];
    let (manifest, blobs) = bundle(&content);
    world.fixture.depot.put_blobs(&blobs).await.unwrap();
    let devices = [("a", &[manifest][..]), ("b", &[manifest])];
    world.fixture.publish(1, &devices);
    Scene {
        honest: world.device(&TestDevice::new("b")).await,
        path: format!("/v1/blobs/{}", Digest::of(&content)),
        world,
    }
}

impl Scene {
    /// As many connections as a device may have, each doing something else.
    async fn held(&self, machine: &TestDevice, identity: Identity) -> Vec<Raw> {
        let again = (identity.0.clone(), identity.1.clone_key());
        let h1 = Dialler::new(&self.world, Some(again), H1);
        let h2 = Dialler::new(&self.world, Some(identity), H2);
        let preface = |more: Vec<u8>| [PREFACE, &more].concat();
        let whole = END_HEADERS | END_STREAM;
        let begun = begins(1, END_HEADERS, "PUT", "/v1/report");
        let poll =
            "GET /v1/desired?root=1 HTTP/1.1\r\nHost: a\r\nPrefer: wait=600\r\nIf-None-Match: ";
        let tag = self.honest.get("/v1/desired?root=1", &[]).await;
        let poll = format!("{poll}{}\r\n\r\n", tag.header("etag"));
        let mut held = Vec::new();
        for sent in [
            poll.clone(),
            poll,
            "GET /v1/desi".to_owned(),
            "PUT /v1/report HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{".to_owned(),
            format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", self.path),
            String::new(),
        ] {
            held.push(h1.say(sent.as_bytes()).await);
        }
        for sent in [
            Vec::new(),
            PREFACE[..9].to_vec(),
            preface(Vec::new()),
            preface(begins(1, whole, "GET", "/v1/desired?root=1")),
            preface(begins(1, whole, "GET", &self.path)),
            preface(begins(1, whole, "GET", &self.path)[..12].to_vec()),
            preface(begun.clone()),
            preface([begun.clone(), piece(1, b"{")].concat()),
            preface(begins(1, 0, "GET", "/")),
            preface([begun, begins(3, whole, "GET", &self.path)].concat()),
        ] {
            held.push(h2.say(&sent).await);
        }
        assert_eq!(held.len(), CONNECTIONS_EACH);
        eventually("all are held", async || {
            (used(&self.world, machine)[0] == CONNECTIONS_EACH).then_some(())
        })
        .await;
        held
    }

    /// Checks that the server closes all of them at that moment, frees their resources, and serves the other device.
    async fn all_end(&self, machine: &TestDevice, held: Vec<Raw>, then: Timestamp) {
        let tried = held.len();
        let mut ended = 0;
        for mut raw in held {
            raw.until_closed().await;
            ended += 1;
        }
        at_that_moment(then);
        uses(&self.world, machine, [0, 0, 0]).await;
        eventually("no poll is held", async || {
            (self.world.fixture.index.waiting() == 0).then_some(())
        })
        .await;
        println!("connections open at the end: closed {ended}/{tried}");
        let answer = self.honest.get("/v1/desired?root=1", &[]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(self.honest.get(&self.path, &[]).await.body.len(), 3_000_000);
    }
}

/// Checks that now is not before that moment and not long after it: any other limit takes a minute.
#[track_caller]
fn at_that_moment(then: Timestamp) {
    let after = Timestamp::now().duration_since(then);
    assert!(after >= SignedDuration::ZERO, "{after:?}");
    assert!(after < SignedDuration::from_secs(20), "{after:?}");
}

#[tokio::test]
async fn revocation_closes_whatever_a_connection_is_doing() {
    let scene = scene().await;
    let machine = TestDevice::new("a");
    let identity = scene.world.join(&machine).await;
    let again = (identity.0.clone(), key(&machine));
    let held = scene.held(&machine, identity).await;
    let member = scene.world.fixture.store.member(&machine.name).unwrap();
    let enroller = &scene.world.fixture.enroller;
    let then = Timestamp::now();
    enroller.revoke(&machine.name, "ada", then).await.unwrap();
    let tried = held.len();
    for mut raw in held {
        raw.until_closed().await;
    }
    at_that_moment(then);
    eventually("nothing is kept for it", async || {
        (member.allowance().used() == [0, 0, 0]).then_some(())
    })
    .await;
    println!("connections open at revocation: closed {tried}/{tried}");
    // a new connection with that certificate, resumed or not, is refused with the reason
    let client = scene.world.connect(Some(again)).await.unwrap();
    for path in ["/v1/desired?root=1", scene.path.as_str()] {
        let answer = client.get(path, &[]).await;
        assert_eq!(answer.failure().0, 403);
    }
    let answer = scene.honest.get("/v1/desired?root=1", &[]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn the_end_of_a_certificate_closes_whatever_a_connection_is_doing() {
    let scene = scene().await;
    let machine = TestDevice::new("a");
    scene.world.join(&machine).await;
    let days = SignedDuration::from_hours(24 * 90);
    // certificates expire at whole seconds
    let then = Timestamp::from_second(Timestamp::now().as_second() + 15).unwrap();
    let short = certified(&scene.world.fixture.fleet, &machine, then - days);
    let held = scene.held(&machine, short).await;
    scene.all_end(&machine, held, then).await;
}
