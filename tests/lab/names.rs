//! DNS fails: workloads keep running, and the device comes back by itself.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::device::{Device, wait};
use crate::site::{Site, device, host, page};

/// A name server on the lab's bridge that knows one name, and can stop answering.
struct Resolver {
    socket: UdpSocket,
    silent: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Resolver {
    fn start() -> Self {
        let socket = UdpSocket::bind((host(), 53)).expect("the port of names on the bridge");
        let listener = socket.try_clone().expect("a socket");
        let resolver = Self {
            socket,
            silent: Arc::default(),
            ended: Arc::default(),
            asked: Arc::default(),
        };
        let (silent, ended) = (resolver.silent.clone(), resolver.ended.clone());
        let asked = resolver.asked.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = listener.recv_from(&mut buffer) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer(&buffer[..length])
                    && !silent.load(Ordering::SeqCst)
                {
                    let _ = listener.send_to(&answer, from);
                }
            }
        });
        resolver
    }

    fn silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // to wake it
        let _ = self.socket.send_to(&[], (host(), 53));
    }
}

/// The answer to a question (RFC 1035): an address for `flotta.example`, nothing else.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let length = question.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let (name, kind) = question[12..].split_at(length);
    let end = 12 + length + 4;
    let known = name.eq_ignore_ascii_case(b"\x06flotta\x07example\0");
    let found = known && kind.starts_with(&[0, 1, 0, 1]);
    let mut answer = question.get(..end)?.to_vec();
    // a response, recursion available; no such name
    answer[2..4].copy_from_slice(&[0x81, if known { 0x80 } else { 0x83 }]);
    answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    if found {
        // the name above, an address, for no time, four bytes
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(host().parse::<std::net::Ipv4Addr>().ok()?.octets());
    }
    Some(answer)
}

fn link(device: &Device) -> Value {
    let output = device.run(&["flotta-agent", "status", "-o", "json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["status"]["link"].clone()
}

#[test]
fn without_names_what_runs_goes_on_and_the_device_comes_back_by_itself() {
    let mut site = Site::start(&[
        ("device.yaml", &device("nameless")),
        ("web.yaml", &page("web", 8080, "the first page")),
    ]);
    let resolver = Resolver::start();
    let nameless = Site::install("nameless");
    nameless.write("/etc/hosts", "127.0.0.1 localhost nameless\n");
    let names = format!("nameserver {}\n", host());
    let hasty = format!("{names}options timeout:1 attempts:1\n");
    nameless.write("/etc/resolv.conf", &hasty);
    nameless.write("/etc/flotta/join", &site.token(&["nameless"]));
    nameless.boot();
    site.in_sync("nameless");
    let containers = nameless.containers();
    assert!(resolver.asked() > 0, "it found the server by its name");

    // DNS stops, and so the next connection fails.
    resolver.silent(true);
    site.kill();
    site.serve();
    let asked = resolver.asked();
    let attempts = wait("the device says that it finds no name", || {
        let link = link(&nameless);
        let why = link["problem"]["message"].as_str().unwrap_or_default();
        let says = link["problem"]["code"] == "FLT0508" && why.contains("lookup");
        let attempts = link["attempts"].as_u64().filter(|n| says && *n >= 5);
        attempts.ok_or_else(|| format!("{link}\n{}", nameless.log()))
    });
    // Each try is a line of the log and a few queries, with a wait in between.
    let asked = resolver.asked() - asked;
    let bound = 4 * (usize::try_from(attempts).expect("few") + 2);
    assert!(asked <= bound, "{asked} questions in {attempts} tries");
    let log = nameless.log();
    let tries = log.lines().filter(|line| line.contains("no connection"));
    let number = |line: &str| line.rsplit_once("attempts=")?.1.trim().parse::<u64>().ok();
    let numbers: Option<Vec<_>> = tries.map(number).collect();
    let numbers = numbers.expect("each try has its number");
    assert!(
        numbers.windows(2).all(|two| two[1] == two[0] + 1) && numbers.last() >= Some(&attempts),
        "{log}"
    );
    nameless.shows(8080, "the first page");
    assert_eq!(nameless.containers(), containers);
    let second = page("web", 8080, "the second page");
    site.commit("another page", &[("web.yaml", &second)]);

    // Even during a query that takes longer than systemd would wait, the agent stops when it is told to.
    nameless.write("/etc/resolv.conf", &names.repeat(3));
    nameless.exec(&["systemctl", "restart", "flotta-agent"]);
    let asked = resolver.asked();
    wait("the agent asks", || {
        let now = resolver.asked();
        (now > asked).then_some(()).ok_or_else(|| nameless.log())
    });
    nameless.exec(&["systemctl", "stop", "flotta-agent"]);
    let show = ["systemctl", "show", "-P", "Result", "flotta-agent"];
    assert_eq!(nameless.exec(&show), "success", "{}", nameless.log());
    nameless.write("/etc/resolv.conf", &hasty);

    // After a reboot without DNS the device works from the ledger.
    nameless.reboot();
    nameless.shows(8080, "the first page");
    resolver.silent(false);
    nameless.shows(8080, "the second page");
    site.in_sync("nameless");
    assert_eq!(link(&nameless)["attempts"], 0);
}
