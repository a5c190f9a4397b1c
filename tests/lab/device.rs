//! A virtual device, controlled with `ci/lab/lab`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::site::{HELLO, host};

/// Deadline for every condition. Hardly any takes a tenth of it, but a repeated failure is retried only after a minute or two.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);
/// How often a condition is polled.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `found` returns something; `what` is in the panic message if it does not.
#[track_caller]
pub(crate) fn wait<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match found() {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < end, "gave up waiting until {what}: {last}"),
        }
        std::thread::park_timeout(LOOK);
    }
}

fn lab(arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/lab/lab");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .output()
        .expect("the lab's program starts")
}

#[track_caller]
fn lab_does(arguments: &[&str]) -> String {
    let output = lab(arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "lab {arguments:?}: {}\n{stdout}{stderr}",
        output.status
    );
    stdout
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// Brings the lab's bridge up: the server listens on it.
pub(crate) fn network() {
    lab_does(&["network", "up"]);
}

/// The names of all current devices, because two tests must not use the same name.
static NAMES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A device, removed on drop.
pub(crate) struct Device {
    pub(crate) name: String,
    address: String,
    folder: PathBuf,
}

impl Device {
    /// Creates a device without the agent, and leaves it off, so that its disk can be written.
    pub(crate) fn create(name: &str) -> Self {
        Self::make("create", name, &[])
    }

    /// The same, with a package installed.
    pub(crate) fn with(package: &Path, name: &str) -> Self {
        Self::make("create", name, &[package.to_str().expect("UTF-8")])
    }

    /// Creates a machine for a server, without Podman.
    pub(crate) fn server(name: &str) -> Self {
        Self::make("create-server", name, &[])
    }

    fn make(create: &str, name: &str, packages: &[&str]) -> Self {
        let new = NAMES.lock().expect("no panic").insert(name.to_owned());
        assert!(new, "another test has a device {name}");
        lab_does(&["registry", "up"]);
        lab(&["device", "rm", name]);
        lab_does(&[&["device", create, name], packages].concat());
        let folder = lab_does(&["device", "dir", name]);
        let address = lab_does(&["device", "addr", name]);
        Self {
            name: name.to_owned(),
            address,
            folder: folder.into(),
        }
    }

    pub(crate) fn boot(&self) {
        lab_does(&["device", "boot", &self.name]);
    }

    /// Runs a command inside, and returns its output, whatever its exit status.
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        lab(&[&["device", "exec", &self.name, "--"], command].concat())
    }

    /// Runs a command inside that must succeed.
    #[track_caller]
    pub(crate) fn exec(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(
            output.status.success(),
            "{command:?} on {}: {}{}",
            self.name,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Installs one of the programs that were built next to this test as the agent.
    pub(crate) fn install_agent(&self, program: &str) {
        let built = Path::new(env!("CARGO_BIN_EXE_flotta")).with_file_name(program);
        assert!(
            built.is_file(),
            "{} is not there: see ci/test",
            built.display()
        );
        let place = self.path("/usr/bin/flotta-agent");
        let _ = std::fs::remove_file(&place);
        crate::site::put(&built, &place);
    }

    /// Cuts the power.
    pub(crate) fn cut(&self) {
        lab_does(&["device", "cut", &self.name]);
    }

    pub(crate) fn reboot(&self) {
        lab_does(&["device", "reboot", &self.name]);
    }

    /// Copies a file of this machine to its disk.
    pub(crate) fn copy(&self, from: &Path, inside: &str) {
        crate::site::put(from, &self.path(inside));
    }

    /// Its address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Writes a file on its disk.
    pub(crate) fn write(&self, inside: &str, content: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }

    /// Its containers: name and id.
    pub(crate) fn containers(&self) -> BTreeMap<String, String> {
        let all = self.exec(&["podman", "ps", "--format", "{{.Names}} {{.ID}}"]);
        let pairs = all.lines().filter_map(|line| line.split_once(' '));
        pairs
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect()
    }

    /// Pushes an image to the registry that is `hello` plus so many incompressible MiB, and returns its reference.
    pub(crate) fn publish(&self, name: &str, mebibytes: u32) -> String {
        let folder = format!("/root/{name}");
        self.write(
            &format!("{folder}/Containerfile"),
            &format!("FROM {HELLO}\nCOPY filler /filler\n"),
        );
        let filler = format!("of={folder}/filler");
        let count = format!("count={mebibytes}");
        self.exec(&["dd", "if=/dev/urandom", &filler, "bs=1M", &count]);
        let tag = format!("{}:5000/{name}:1", host());
        // without intermediate layers
        self.exec(&[
            "podman",
            "build",
            "--quiet",
            "--layers=false",
            "--tag",
            &tag,
            &folder,
        ]);
        let digest = format!("{folder}/digest");
        self.exec(&[
            "podman",
            "push",
            "--quiet",
            "--tls-verify=false",
            "--digestfile",
            &digest,
            &tag,
        ]);
        self.exec(&["podman", "rmi", &tag]);
        let digest = self.exec(&["cat", &digest]);
        self.exec(&["rm", "-r", &folder]);
        format!("registry.example/{name}@{}", digest.trim())
    }

    /// The agent's log.
    pub(crate) fn log(&self) -> String {
        text(
            &self
                .run(&[
                    "journalctl",
                    "-u",
                    "flotta-agent",
                    "--no-pager",
                    "-o",
                    "cat",
                ])
                .stdout,
        )
    }

    /// Waits until a page has this content.
    #[track_caller]
    pub(crate) fn shows(&self, port: u16, content: &str) {
        wait(
            &format!("{} shows {content:?} on port {port}", self.name),
            || {
                let (_, body) = get(&self.address, port, "/")
                    .map_err(|error| format!("{error}\n{}", self.log()))?;
                if body.contains(content) {
                    Ok(())
                } else {
                    Err(body)
                }
            },
        );
    }

    /// The body that a port answers with now, if the status is 200. It does not wait: a connection that is opened while the
    /// container's network is set up would be retried only after a second.
    pub(crate) fn look(&self, port: u16) -> Result<String, String> {
        get_within(&self.address, port, "/", Duration::from_millis(25)).map(|(_, body)| body)
    }

    /// A path on its disk, as seen from this machine.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// Waits until a port answers 200, and returns the body.
    #[track_caller]
    pub(crate) fn get(&self, port: u16, path: &str) -> String {
        wait(&format!("{} answers on port {port}", self.name), || {
            get(&self.address, port, path)
        })
        .1
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        lab(&["device", "rm", &self.name]);
        NAMES.lock().expect("no panic").remove(&self.name);
    }
}

/// Sends one HTTP request, and returns status and body if the status is 200.
fn get(address: &str, port: u16, path: &str) -> Result<(u16, String), String> {
    get_within(address, port, path, Duration::from_secs(1))
}

fn get_within(
    address: &str,
    port: u16,
    path: &str,
    limit: Duration,
) -> Result<(u16, String), String> {
    let address: SocketAddr = format!("{address}:{port}")
        .parse()
        .map_err(|e| format!("{e}"))?;
    let mut stream = TcpStream::connect_timeout(&address, limit).map_err(|e| e.to_string())?;
    stream
        .set_read_timeout(Some(limit))
        .map_err(|e| e.to_string())?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: device\r\n\r\n").map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|e| e.to_string())?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("no end of the headers")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or("no status")?;
    if status == 200 {
        Ok((status, body.to_owned()))
    } else {
        Err(head.to_owned())
    }
}
