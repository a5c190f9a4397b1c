//! A fleet: a Git repository, the real server as a process, and devices that join it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, LazyLock, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use crate::device::{Device, text, wait};
use crate::packages::Packages;

/// The lab's images, by the digests that are in the examples.
pub(crate) const HELLO: &str = "registry.example/hello@sha256:ef1282d29dea80613629dcb925fb16a1a28e41b11abaf24c1d9ed6bbc5368791";
pub(crate) const EXITS: &str = "registry.example/exits@sha256:9c3547e04b2cfee17b23690223b2265402a4811e8ab558a88356b534066deafe";
/// The address of this machine on the lab's bridge. Labs that run at the same time have different networks.
pub(crate) fn host() -> &'static str {
    static HOST: LazyLock<String> = LazyLock::new(|| {
        let subnet = std::env::var("FLOTTA_LAB_SUBNET");
        subnet.unwrap_or_else(|_| "10.231.0".to_owned()) + ".1"
    });
    &HOST
}
const API: &str = "apiVersion: management.project-flotta.io/v1alpha1";

/// An `EdgeDevice`; it reports every two seconds.
pub(crate) fn device(name: &str) -> String {
    format!(
        "{API}\nkind: EdgeDevice\nmetadata:\n  name: {name}\nspec:\n  heartbeat:\n    periodSeconds: 2\n"
    )
}

/// A workload of one container that serves `page` on `port`, on all devices.
pub(crate) fn page(name: &str, port: u16, page: &str) -> String {
    format!(
        "{}          volumeMounts: [{{name: site, mountPath: /site}}]\n      volumes:\n        - name: site\n          configMap: {{name: {name}-site}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}-site}}\ndata:\n  page: {page:?}\n",
        workload(name, HELLO, port, &format!("[\"{port}\", /site/page]"))
    )
}

/// A workload of one container, on all devices.
pub(crate) fn workload(name: &str, image: &str, port: u16, args: &str) -> String {
    format!(
        "{API}\nkind: EdgeWorkload\nmetadata:\n  name: {name}\nspec:\n  type: pod\n  deviceSelector: {{}}\n  pod:\n    spec:\n      containers:\n        \
         - name: {name}\n          image: {image}\n          args: {args}\n          ports: [{{containerPort: {port}, hostPort: {port}}}]\n"
    )
}

pub(crate) struct Site {
    folder: TempDir,
    server: Option<Child>,
    /// The server's output on both streams.
    said: Arc<Mutex<String>>,
    listen: String,
    /// Additional names in its certificate.
    names: Vec<String>,
    /// The offset of the server's clock, and additional arguments.
    pub(crate) clock: Option<&'static str>,
    pub(crate) arguments: Vec<&'static str>,
}

/// The library that makes only one program's clock wrong (Debian: faketime).
pub(crate) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

impl Site {
    /// A repository with these files, and a server that follows it.
    pub(crate) fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut site = Self {
            folder,
            server: None,
            said: Arc::default(),
            clock: None,
            arguments: Vec::new(),
            listen: format!("{}:0", host()),
            names: Vec::new(),
        };
        crate::device::network();
        std::fs::create_dir(site.repository()).expect("a folder");
        site.git(&["init", "--quiet", "--initial-branch=main"]);
        site.commit("first", files);
        site.serve();
        site
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("fleet")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=lab", "-c", "user.email=lab@example.com"];
        let mut git = Command::new("git");
        git.args(identity)
            .args(arguments)
            .current_dir(self.repository());
        let output = git.output().expect("git starts");
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Writes these files and commits; empty content removes a file.
    pub(crate) fn commit(&self, message: &str, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = self.repository().join(name);
            if content.is_empty() {
                std::fs::remove_file(path).expect("a file");
            } else {
                std::fs::write(path, content).expect("a file");
            }
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    /// Starts the server: the first time on any port, later on the same one.
    pub(crate) fn serve(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flotta"));
        command.args([
            "serve",
            "--fleet",
            "lab",
            "--poll",
            "1s",
            "--name",
            "flotta.example",
            "--name",
            host(),
        ]);
        for name in &self.names {
            command.args(["--name", name]);
        }
        command
            .args(["--listen", &self.listen])
            .arg("--source")
            .arg(self.repository());
        command
            .arg("--data")
            .arg(self.path("data"))
            .arg("--admin")
            .arg(self.path("admin.sock"));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(Stdio::null());
        command.args(&self.arguments);
        if let Some(offset) = self.clock {
            assert!(Path::new(FAKETIME).exists(), "{FAKETIME}: ci/lab/lab setup");
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", offset);
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let mut server = command.spawn().expect("the server starts");
        let (lines, heard) = mpsc::channel();
        let stdout = server.stdout.take().expect("piped");
        let stderr = server.stderr.take().expect("piped");
        follow(stdout, lines.clone(), &self.said);
        follow(stderr, lines, &self.said);
        self.server = Some(server);
        let mut ready = false;
        while !ready {
            let line = heard.recv_timeout(crate::device::DEADLINE);
            let Ok(line) = line else {
                assert!(ready, "the server is not ready:\n{}", self.said());
                return;
            };
            if let Some((_, port)) = line.split_once(&format!("https://{}:", host())) {
                let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
                self.listen = format!("{}:{digits}", host());
            }
            ready = line.starts_with("ready") || line.starts_with("source");
        }
    }

    /// The server's output since it was first started.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// Waits until the server prints this, and returns the line.
    #[track_caller]
    pub(crate) fn hears(&self, what: &str) -> String {
        wait(&format!("the server says {what:?}"), || {
            let said = self.said();
            let line = said
                .lines()
                .find(|line| line.contains(what))
                .map(str::to_owned);
            line.ok_or(said)
        })
    }

    /// Sets another address for the next start, and adds a name.
    pub(crate) fn moves_to(&mut self, listen: &str, name: &str) {
        listen.clone_into(&mut self.listen);
        self.names = vec![name.to_owned()];
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("it runs");
            server.wait().expect("it ends");
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.listen.replace(host(), "flotta.example"))
    }

    pub(crate) fn address(&self) -> &str {
        &self.listen
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flotta"));
        command
            .args(arguments)
            .env("FLOTTA_ADMIN", self.path("admin.sock"));
        command.output().expect("flotta starts")
    }

    /// Runs `flotta`, and returns its output.
    #[track_caller]
    pub(crate) fn flotta(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let code = output.status.code();
        assert_eq!(
            code,
            Some(0),
            "flotta {arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.flotta(&[arguments, &["-o", "json"]].concat())).expect("JSON")
    }

    /// A device's status once it has joined, also if it was revoked.
    pub(crate) fn status(&self, device: &str) -> Value {
        let states = "Ready,Updating,Failed,Offline,Pending,Revoked";
        let all = self.json(&["get", "devices", "--state", states]);
        let items = all["items"].as_array().expect("a list").clone();
        items
            .into_iter()
            .find(|item| item["metadata"]["name"] == device)
            .map_or(Value::Null, |item| item["status"].clone())
    }

    /// Waits until the device has completely applied the newest release.
    #[track_caller]
    pub(crate) fn in_sync(&self, device: &str) {
        let commit = self.git(&["rev-parse", "HEAD"]);
        wait(&format!("{device} has commit {commit}"), || {
            let status = self.status(device);
            let has = status["wanted"]["commit"]["id"] == commit.as_str()
                && status["running"]["manifest"] == status["wanted"]["manifest"]
                && status["state"] == "Ready";
            has.then_some(())
                .ok_or_else(|| format!("{status}\n{}", self.said()))
        });
    }

    /// Waits until a workload of the device has a problem with this code, and returns its message.
    #[track_caller]
    pub(crate) fn problem(&self, device: &str, workload: &str, code: &str) -> String {
        wait(&format!("{workload} of {device} has {code}"), || {
            let status = self.status(device);
            let all = status["workloads"].as_array().cloned().unwrap_or_default();
            let found = all
                .iter()
                .find(|found| found["name"] == workload && found["code"] == code);
            found
                .map(|found| found["message"].as_str().unwrap_or_default().to_owned())
                .ok_or_else(|| status.to_string())
        })
    }

    /// Waits for an event with these words, and returns it.
    #[track_caller]
    pub(crate) fn event(&self, words: &[&str]) -> String {
        wait(&format!("there is an event with {words:?}"), || {
            let all = self.flotta(&["get", "events", "-A", "-o", "wide"]);
            let found = all
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)))
                .map(str::to_owned);
            found.ok_or(all)
        })
    }

    /// A join file; `flotta token create` with these arguments.
    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        self.flotta(&[&["token", "create", "--server", &self.url()], arguments].concat())
    }

    /// A device with the agent's package installed, switched off.
    pub(crate) fn install(name: &str) -> Device {
        Device::with(&Packages::built().agent, name)
    }

    /// A device that joins at its first boot with a join file on its disk.
    pub(crate) fn join(&self, name: &str) -> Device {
        let device = Self::install(name);
        device.write("/etc/flotta/join", &self.token(&[name]));
        device.boot();
        device
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn put(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().expect("a folder")).expect("folders");
    std::fs::copy(from, to).expect("a copy");
}

fn follow(
    stream: impl std::io::Read + Send + 'static,
    lines: mpsc::Sender<String>,
    said: &Arc<Mutex<String>>,
) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut all = said.lock().expect("no panic");
            all.push_str(&line);
            all.push('\n');
            drop(all);
            // The receiver is dropped once the server is ready.
            let _ = lines.send(line);
        }
    });
}
