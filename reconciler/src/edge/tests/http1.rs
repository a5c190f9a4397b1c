//! Behaviour that is specific to HTTP/1.1.

use super::raw::{Dialler, H1};
use super::world::World;
use crate::fixture::TestDevice;

/// Sends `sent`, and returns all answers until the server closes the connection.
async fn answer(dialler: &Dialler, sent: &str) -> String {
    let answer = dialler.say(sent.as_bytes()).await.until_closed().await;
    answer.to_ascii_lowercase()
}

#[tokio::test]
async fn a_body_that_is_no_body_is_not_called_too_long() {
    let world = World::new().await;
    let identity = world.join(&TestDevice::new("a")).await;
    let dialler = Dialler::new(&world, Some(identity), H1);
    let chunked = "PUT /v1/report HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    for garbled in ["ZZ\r\n{}\r\n0\r\n\r\n", "2\r\n{}and more\r\n0\r\n\r\n"] {
        let answer = answer(&dialler, &format!("{chunked}{garbled}")).await;
        assert!(answer.starts_with("http/1.1 400 "), "{garbled}: {answer}");
        assert!(answer.contains("flt0414"), "{garbled}: {answer}");
    }
}

/// A client with a connection pool must learn that the connection is closed, or its next request is lost.
#[tokio::test]
async fn who_is_answered_before_its_body_is_read_is_told_that_the_connection_ends() {
    let world = World::new().await;
    let identity = world.join(&TestDevice::new("a")).await;
    let device = Dialler::new(&world, Some(identity), H1);
    let nobody = Dialler::new(&world, None, H1);
    let asked = [
        (&nobody, "PUT /v1/report", 401),
        (&nobody, "POST /v1/certificates", 401),
        (&nobody, "POST /v1/none", 404),
        (&nobody, "DELETE /v1/report", 405),
        (&nobody, "GET /v1/desired", 401),
        (&device, "GET /v1/desired?root=1", 404),
        (&device, "GET /v1/blobs/sha256:00", 400),
    ];
    for (dialler, asked, status) in asked {
        for body in ["", "12345"] {
            let sent = format!("{asked} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{body}");
            let answer = answer(dialler, &sent).await;
            let begins = format!("http/1.1 {status} ");
            assert!(answer.starts_with(&begins), "{asked}: {answer}");
            assert!(
                answer.contains("\r\nconnection: close\r\n"),
                "{asked}: {answer}"
            );
        }
    }
    // a request without a body does not end the connection
    let twice = "GET /v1/none HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2)
        + "GET /v1/none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = answer(&nobody, &twice).await;
    assert_eq!(answer.matches("http/1.1 404 ").count(), 3, "{answer}");
}
