//! A device that can reach the server only through an HTTP proxy, and cannot even resolve its name.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::device::{Device, wait};
use crate::site::{Site, device, host, page};

/// The state of the proxy.
#[derive(Default)]
struct Record {
    /// The server, while the proxy allows connections to it.
    open: Option<String>,
    /// The heads of requests.
    asked: Vec<String>,
    /// All bytes that it forwarded.
    carried: Vec<u8>,
    /// Its open connections.
    streams: Vec<TcpStream>,
}

/// A proxy on the lab's bridge. Only it can resolve `flotta.example`.
struct Proxy {
    port: u16,
    record: Arc<Mutex<Record>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind((host(), 0)).expect("a port on the bridge");
        let port = listener.local_addr().expect("an address").port();
        let record = Arc::new(Mutex::new(Record::default()));
        let kept = record.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let record = kept.clone();
                // A device may hang up.
                std::thread::spawn(move || serve(stream, &record));
            }
        });
        Self { port, record }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no panic")
    }

    /// Refuses new connections, and drops the open ones.
    fn close(&self) {
        let mut record = self.record();
        record.open = None;
        for stream in record.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(mut device: TcpStream, record: &Mutex<Record>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        device.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(|_| ErrorKind::InvalidData)?;
    let open = {
        let mut record = record.lock().expect("no panic");
        record.asked.push(head.clone());
        record.open.clone()
    };
    // shop:s@cret
    let knows = head.contains("\r\nproxy-authorization: Basic c2hvcDpzQGNyZXQ=\r\n");
    let Some(server) = open.filter(|_| knows) else {
        return device.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    };
    let server = TcpStream::connect(server)?;
    device.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let streams = [device.try_clone()?, server.try_clone()?];
    record.lock().expect("no panic").streams.extend(streams);
    std::thread::scope(|scope| {
        scope.spawn(|| carry(&device, &server, record));
        scope.spawn(|| carry(&server, &device, record));
    });
    Ok(())
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, record: &Mutex<Record>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..count];
        record
            .lock()
            .expect("no panic")
            .carried
            .extend_from_slice(bytes);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Waits until the agent has logged something.
fn logs(device: &Device, words: &[&str]) {
    wait(&format!("the agent logs {words:?}"), || {
        let log = device.log();
        let found = log
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)));
        found.then_some(()).ok_or(log)
    });
}

#[test]
fn a_device_behind_a_proxy_joins_and_follows_through_it() {
    let site = Site::start(&[
        ("device.yaml", &device("behind")),
        ("web.yaml", &page("web", 8080, "the first page")),
    ]);
    let proxy = Proxy::start();
    let behind = Site::install("behind");
    behind.write("/etc/hosts", "127.0.0.1 localhost behind\n");
    behind.write("/etc/flotta/join", &site.token(&["behind"]));
    // With a password as in docs/network.md.
    behind.write(
        "/etc/systemd/system/flotta-agent.service.d/proxy.conf",
        "[Service]\nEnvironmentFile=/etc/flotta/proxy.env\n",
    );
    let address = format!("http://shop:s%40cret@{}:{}", host(), proxy.port);
    let environment = format!("HTTPS_PROXY={address}\nNO_PROXY=other.example\n");
    behind.write("/etc/flotta/proxy.env", &environment);
    behind.boot();
    let lost = behind.run(&["getent", "hosts", "flotta.example"]);
    assert!(!lost.status.success(), "the device does not know the name");

    // The message about a proxy's refusal has the proxy's name, but not the password.
    logs(&behind, &["FLT0512", "does not take the user and password"]);
    proxy.record().open = Some(site.address().to_owned());
    site.in_sync("behind");
    behind.shows(8080, "the first page");
    let port = site
        .address()
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let target = format!("CONNECT flotta.example:{port} HTTP/1.1\r\n");
    for head in &proxy.record().asked {
        assert!(head.starts_with(&target), "{head}");
    }
    assert!(!behind.log().contains("cret"), "{}", behind.log());

    // Without the proxy, workloads keep running; with it again, the device follows.
    let containers = behind.containers();
    proxy.close();
    logs(&behind, &["no connection", "FLT0512"]);
    let second = page("web", 8080, "the second page");
    site.commit("another page", &[("web.yaml", &second)]);
    behind.shows(8080, "the first page");
    assert_eq!(behind.containers(), containers);
    proxy.record().open = Some(site.address().to_owned());
    behind.shows(8080, "the second page");
    site.in_sync("behind");

    // It forwarded all of this and could read none of it.
    let carried = &proxy.record().carried;
    let seen = |words: &[u8]| carried.windows(words.len()).any(|part| part == words);
    assert!(seen(b"flotta.example"), "the name in TLS's greeting");
    for secret in [&b"the first page"[..], b"behind", b"manifest"] {
        assert!(!seen(secret), "{}", String::from_utf8_lossy(secret));
    }
}
