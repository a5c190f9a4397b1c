//! What the real Podman does is tried by the script on a device; here is what a damaged store must never lead to.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;

/// Podman 5.4's words.
const ORPHAN: &str = r#"{"Errors":true,"Layers":{"b9":["layer b9: layer not referenced by any images or containers"]},"ROLayers":null,"RemovedLayers":null,"Images":null,"ROImages":null,"RemovedImages":null,"Containers":null,"RemovedContainers":null}"#;
const DAMAGED: &str = r#"{"Errors":true,"Layers":{"b9":["layer b9: layer not referenced by any images or containers"]},"ROLayers":null,"RemovedLayers":null,"Images":{"db":["image db: data item \"manifest\": image data item is missing"]},"ROImages":null,"RemovedImages":null,"Containers":null,"RemovedContainers":null}"#;

/// Tidies with a Podman that answers everything so; what came of it, and what was asked.
async fn tidied(answer: &str) -> (Result<usize, BackendError>, Vec<String>) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("podman.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut asked = Vec::new();
    let serve = async {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            let request = String::from_utf8(request).expect("text");
            asked.push(request.lines().next().unwrap_or_default().to_owned());
            let sent = stream.write_all(answer.as_bytes()).await;
            sent.expect("answered");
        }
    };
    let done = tokio::select! {
        never = serve => never,
        done = async { Socket::new(path).tidy().await } => done,
    };
    (done, asked)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn layers_of_nothing_are_removed() {
    let (done, asked) = tidied(&answer("200 OK", ORPHAN)).await;
    assert_eq!(done, Ok(1));
    assert_eq!(
        asked,
        [
            "POST /v4.0.0/libpod/system/check?quick=true&repair=false HTTP/1.1",
            "POST /v4.0.0/libpod/system/check?quick=true&repair=true HTTP/1.1",
        ]
    );
}

#[tokio::test]
async fn of_a_damaged_store_nothing_is_removed() {
    let (done, asked) = tidied(&answer("200 OK", DAMAGED)).await;
    let why = done.expect_err("damaged").to_string();
    assert!(why.contains("image data item is missing"), "{why}");
    assert_eq!(asked.len(), 1);
}

#[tokio::test]
async fn an_old_podman_cannot_and_that_is_no_trouble() {
    let (done, asked) = tidied(&answer("404 Not Found", "{}")).await;
    assert_eq!((done, asked.len()), (Ok(0), 1));
}
