//! A Git repository with a fleet of any size, and `flotta serve` for it in its own process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use flotta_bundle::DeviceName;
use flotta_bundle::wire::JoinFile;
use flotta_reconciler::admin::client::Client;
use flotta_reconciler::admin::request::{FleetFacts, TokenCreated, TokenRequest};
use flotta_reconciler::admin::resource::{Device, List, ReleaseObject};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Deadline for everything that is not measured.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// The secret of the hook.
const SECRET: &str = "a push to the fleet's repository";

/// Objects in one file, because the size of a file is limited.
const IN_A_FILE: usize = 1000;

/// The content of a fleet: each device has a workload of its own, and all of them share some.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// For each device, the state of its own workload.
    pub own: Vec<u32>,
    /// For each shared workload, its state.
    pub shared: Vec<u32>,
}

impl Fleet {
    /// A fleet in its first state.
    pub fn new(devices: usize, shared: usize) -> Self {
        Self {
            own: vec![1; devices],
            shared: vec![1; shared],
        }
    }

    /// The name of a device.
    pub fn name(device: usize) -> DeviceName {
        let name = DeviceName::new("default", &format!("device-{device}"));
        name.expect("a name of letters and digits")
    }

    /// A text that is in the content of this device and of no other.
    pub fn mark(device: usize) -> String {
        format!("OWNER=device-{device}.")
    }

    /// The fleet as YAML: paths and contents.
    pub fn files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for (number, states) in self.own.chunks(IN_A_FILE).enumerate() {
            let (mut devices, mut workloads) = (String::new(), String::new());
            for (index, state) in (number * IN_A_FILE..).zip(states) {
                let _ = write!(
                    devices,
                    "---\napiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\n\
                     metadata:\n  name: device-{index}\n  labels:\n    all: \"yes\"\n"
                );
                let on = format!("device: device-{index}");
                let mark = Self::mark(index);
                workload(&mut workloads, &format!("own-{index}"), &on, &mark, *state);
            }
            files.push((format!("devices-{number}.yaml"), devices));
            files.push((format!("own-{number}.yaml"), workloads));
        }
        for (number, state) in self.shared.iter().enumerate() {
            let mut workloads = String::new();
            let on = "deviceSelector:\n    matchLabels:\n      all: \"yes\"";
            workload(
                &mut workloads,
                &format!("shared-{number}"),
                on,
                "OWNER=all",
                *state,
            );
            files.push((format!("shared-{number}.yaml"), workloads));
        }
        files
    }
}

fn workload(to: &mut String, name: &str, on: &str, mark: &str, state: u32) {
    let digest = "ef1282d29dea80613629dcb925fb16a1a28e41b11abaf24c1d9ed6bbc5368791";
    let _ = write!(
        to,
        "---\napiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\nmetadata:\n  name: {name}\n\
         spec:\n  type: quadlet\n  {on}\n  quadlet:\n    {name}.container: |\n      [Container]\n      \
         Image=registry.example/{name}@sha256:{digest}\n      Environment={mark} STATE={state}\n      [Install]\n      WantedBy=multi-user.target\n"
    );
}

/// A directory in memory if possible, so that the writes of many simulated devices do not share one disk.
pub fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() {
        tempfile::tempdir_in(memory)?
    } else {
        tempfile::tempdir()?
    })
}

/// A repository and the server over it.
#[derive(Debug)]
pub struct Site {
    program: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    hooks: SocketAddr,
    server: Option<Child>,
    admin: Client,
}

impl Site {
    /// Commits the fleet and starts the server, which is notified of commits by a hook.
    pub async fn start(program: &Path, fleet: &Fleet) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("secret"), SECRET)?;
        // free ports, which the server uses again after restarts
        let [address, hooks] = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ]
        .map(|listener| listener.local_addr());
        let mut options = git2::RepositoryInitOptions::new();
        options.initial_head("main");
        git2::Repository::init_opts(folder.path().join("fleet"), &options)?;
        let mut site = Self {
            program: program.to_owned(),
            admin: Client::new(folder.path().join("admin.sock")),
            folder,
            address: address?,
            hooks: hooks?,
            server: None,
        };
        site.commit(fleet).await?;
        site.serve().await?;
        site.released(1).await?;
        Ok(site)
    }

    /// Commits the current fleet, and notifies the server if it is running.
    pub async fn commit(&self, fleet: &Fleet) -> Result<()> {
        self.write(fleet)?;
        if self.server.is_none() {
            return Ok(());
        }
        let mut stream = TcpStream::connect(self.hooks).await?;
        let push = format!(
            "POST /hooks/git HTTP/1.1\r\nhost: bench\r\nconnection: close\r\nx-gitlab-token: {SECRET}\r\n\
             content-length: 2\r\n\r\n{{}}"
        );
        stream.write_all(push.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 202 "), "the hook: {answer}");
        Ok(())
    }

    fn write(&self, fleet: &Fleet) -> Result<()> {
        let repository = git2::Repository::open(self.folder.path().join("fleet"))?;
        let mut tree = repository.treebuilder(None)?;
        for (path, content) in fleet.files() {
            tree.insert(path, repository.blob(content.as_bytes())?, 0o100_644)?;
        }
        let tree = repository.find_tree(tree.write()?)?;
        let who = git2::Signature::now("bench", "bench@example.com")?;
        let parent = repository
            .head()
            .and_then(|head| head.peel_to_commit())
            .ok();
        let parents: Vec<_> = parent.iter().collect();
        repository.commit(Some("HEAD"), &who, &who, "fleet", &tree, &parents)?;
        Ok(())
    }

    /// Starts the server, and waits until it answers.
    pub async fn serve(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "the server runs already");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .arg("--source")
            .arg(self.folder.path().join("fleet"))
            .arg("--data")
            .arg(self.folder.path().join("data"))
            .args(["--fleet", "bench", "--name", "127.0.0.1"])
            .args(["--listen", &self.address.to_string()])
            .args(["--poll", "1h", "--hooks-listen", &self.hooks.to_string()])
            .arg("--hooks-secret-file")
            .arg(self.folder.path().join("secret"))
            .env("FLOTTA_ADMIN", self.admin.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().context("flotta serve does not start")?;
        self.server = Some(child);
        let began = Instant::now();
        while self.facts().await.is_err() {
            self.look(began, "an answer of the server")?;
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            server.kill()?;
            server.wait()?;
        }
        Ok(())
    }

    /// The address of the edge API.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("no server runs")?.id())
    }

    /// The server's facts about itself.
    pub async fn facts(&self) -> Result<FleetFacts> {
        Ok(self.admin.get("/v1/fleet").await?)
    }

    /// Waits until `count` devices have a held poll.
    pub async fn held(&mut self, count: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let waiting = self.facts().await?.waiting;
            if waiting == count {
                return Ok(());
            }
            self.look(began, &format!("{count} held polls, {waiting} are"))?;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a release of this sequence is in force.
    pub async fn released(&mut self, sequence: u64) -> Result<()> {
        let began = Instant::now();
        loop {
            let releases: List<ReleaseObject> = self.admin.get("/v1/releases").await?;
            let in_force = releases
                .items
                .iter()
                .find(|item| item.status.state == "InForce");
            let newest: Option<u64> = in_force.and_then(|item| item.metadata.name.parse().ok());
            if newest >= Some(sequence) {
                return Ok(());
            }
            self.look(began, &format!("release {sequence}"))?;
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The manifest that each device is offered, by name.
    pub async fn wanted(&self) -> Result<BTreeMap<String, String>> {
        let devices: List<Device> = self.admin.get("/v1/devices").await?;
        let wanted = devices.items.into_iter().map(|device| {
            let manifest = device.status.wanted.map(|wanted| wanted.manifest);
            (device.metadata.name, manifest.unwrap_or_default())
        });
        Ok(wanted.collect())
    }

    /// Number of devices with a certificate; one that is in Git and has not joined has none.
    pub async fn joined(&self) -> Result<usize> {
        let devices: List<Device> = self.admin.get("/v1/devices").await?;
        let joined = devices
            .items
            .iter()
            .filter(|device| device.status.identity.is_some());
        Ok(joined.count())
    }

    /// A join file with a token for one device.
    pub async fn join_file(&self, device: DeviceName) -> Result<JoinFile> {
        let request = TokenRequest {
            device: Some(device),
            ttl_seconds: 3600,
            ask: false,
            set: None,
            labels: BTreeMap::new(),
            server: None,
        };
        let created: TokenCreated = self.admin.post("/v1/tokens", &request).await?;
        Ok(created.join)
    }

    /// Fails when the deadline has passed or the server has exited.
    fn look(&mut self, began: Instant, what: &str) -> Result<()> {
        let ended = match &mut self.server {
            Some(server) => server.try_wait()?,
            None => None,
        };
        if ended.is_some() || began.elapsed() > DEADLINE {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(20).collect();
            let tail: Vec<_> = lines.into_iter().rev().collect();
            bail!(
                "gave up waiting for {what}; the server's log ends:\n{}",
                tail.join("\n")
            );
        }
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // there is nobody to report an error to
        let _ = self.kill();
    }
}
