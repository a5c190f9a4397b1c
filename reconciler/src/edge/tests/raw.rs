//! Raw connections for clients that break the rules of HTTP.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::{Identity, World, connector};
use crate::fixture::{DEADLINE, TestDevice, eventually};

/// The start of HTTP/2: the preface and empty settings.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub(super) const H1: &[u8] = b"http/1.1";
pub(super) const H2: &[u8] = b"h2";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// Opens connections, all with one certificate or all without.
pub(super) struct Dialler {
    connector: TlsConnector,
    address: SocketAddr,
}

impl Dialler {
    pub(super) fn new(world: &World, identity: Option<Identity>, protocol: &[u8]) -> Self {
        Self {
            connector: connector(&world.fixture.fleet, identity, protocol),
            address: world.address,
        }
    }

    pub(super) async fn dial(&self) -> Raw {
        let dialled = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let name = "localhost".try_into().unwrap();
            self.connector.connect(name, stream).await
        };
        let dialled = tokio::time::timeout(DEADLINE, dialled).await.unwrap();
        // the server may have closed it already
        Raw(dialled.ok())
    }

    /// Opens a connection and sends `sent`, whether the server reads it or not.
    pub(super) async fn say(&self, sent: &[u8]) -> Raw {
        let mut raw = self.dial().await;
        raw.write(sent).await;
        raw
    }
}

/// One connection.
pub(super) struct Raw(Option<TlsStream<TcpStream>>);

impl Raw {
    pub(super) async fn write(&mut self, sent: &[u8]) {
        if let Some(stream) = &mut self.0
            && (stream.write_all(sent).await.is_err() || stream.flush().await.is_err())
        {
            self.0 = None;
        }
    }

    /// Reads the next bytes; none when the server has closed it.
    async fn read(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let read = self.0.as_mut()?.read(&mut bytes);
        let read = tokio::time::timeout(DEADLINE, read).await;
        match read.expect("neither an answer nor an end") {
            Ok(0) | Err(_) => None,
            Ok(length) => Some(bytes[..length].to_vec()),
        }
    }

    /// Whether the server serves HTTP/2 on it, rather than having closed it.
    pub(super) async fn is_served(&mut self) -> bool {
        self.write(PREFACE).await;
        self.read().await.is_some()
    }

    /// The server's initial windows: of a request, and of the connection.
    pub(super) async fn windows(&mut self) -> (u32, u32) {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let (mut of_request, mut of_connection, mut bytes) = (0, 0, Vec::new());
        while of_request == 0 || of_connection == 0 {
            bytes.extend(self.read().await.expect("the server has closed it"));
            while bytes.len() >= 9 && bytes.len() >= 9 + number(&bytes[..4]) as usize / 256 {
                let kind = bytes[3];
                let rest = bytes.split_off(9 + number(&bytes[..4]) as usize / 256);
                let payload = std::mem::replace(&mut bytes, rest).split_off(9);
                match kind {
                    // SETTINGS: the one numbered 4
                    4 => {
                        let mut settings = payload.chunks(6);
                        let window = settings.find(|setting| setting[..2] == [0, 4]);
                        of_request = window.map_or(of_request, |setting| number(&setting[2..]));
                    }
                    // WINDOW_UPDATE: added to HTTP/2's default
                    8 => of_connection = 65_535 + number(&payload),
                    _ => {}
                }
            }
        }
        (of_request, of_connection)
    }

    /// Waits until the server has read what was sent; false when it has closed the connection.
    pub(super) async fn ping(&mut self) -> bool {
        const SAID: &[u8] = b"are you?";
        self.write(&frame(PING, 0, 0, SAID)).await;
        let mut all = Vec::new();
        while let Some(bytes) = self.read().await {
            all.extend(bytes);
            if all.windows(SAID.len()).any(|some| some == SAID) {
                return true;
            }
        }
        false
    }

    /// Reads until the server closes it.
    pub(super) async fn until_closed(&mut self) -> String {
        let mut all = Vec::new();
        while let Some(bytes) = self.read().await {
            all.extend(bytes);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A HEADERS frame that begins a request, with headers neither indexed nor compressed.
pub(super) fn begins(stream: u32, flags: u8, method: &str, path: &str) -> Vec<u8> {
    // `:scheme: https` is 7 in the static table; `:authority`, `:method` and `:path` are named by their place in it
    let mut block = vec![0x87];
    for (name, value) in [(1, "localhost"), (2, method), (4, path)] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    frame(HEADERS, flags, stream, &block)
}

/// An `RST_STREAM` frame that cancels a request.
pub(super) fn cancels(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A DATA frame of a body that does not end.
pub(super) fn piece(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, bytes)
}

/// Number of connections, downloads and bodies that the server has for a device.
pub(super) fn used(world: &World, machine: &TestDevice) -> [usize; 3] {
    let member = world.fixture.store.member(&machine.name).unwrap();
    member.allowance().used()
}

/// Waits until these numbers are as expected.
pub(super) async fn uses(world: &World, machine: &TestDevice, expected: [usize; 3]) {
    eventually("connections, downloads and bodies", async || {
        (used(world, machine) == expected).then_some(())
    })
    .await;
}
