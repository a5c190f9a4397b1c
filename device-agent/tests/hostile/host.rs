//! The device's machine: real files below a folder, systemd and Podman in memory. Every call that changes anything is
//! recorded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use flotta_agent::backend::files::Disk;
use flotta_agent::backend::{
    BackendError, Container, Files, Found, Podman, Systemd, UnitState, Verb, Visit,
};
use flotta_agent::converge::Host;
use flotta_bundle::DevicePath;
use flotta_bundle::manifest::File;
use jiff::Timestamp;

const QUADLET: &str = "etc/containers/systemd";

#[derive(Default)]
struct Machine {
    loaded: BTreeSet<String>,
    images: BTreeSet<String>,
    /// The running units, and the number of the run.
    runs: BTreeMap<String, usize>,
    /// When each unit was started.
    since: BTreeMap<String, Timestamp>,
    calls: Vec<String>,
}

/// A machine that the agent and the test share.
#[derive(Clone)]
pub struct FakeMachine {
    root: PathBuf,
    machine: Rc<RefCell<Machine>>,
}

impl FakeMachine {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            machine: Rc::default(),
        }
    }

    pub fn host(&self) -> Host<Self, Self, Self> {
        Host::new(self.clone(), self.clone(), self.clone())
    }

    fn note(&self, call: String) {
        self.machine.borrow_mut().calls.push(call);
    }

    /// Number of changes to the machine.
    pub fn touched(&self) -> usize {
        self.machine.borrow().calls.len()
    }

    pub fn calls(&self) -> Vec<String> {
        self.machine.borrow().calls.clone()
    }

    /// The running units.
    pub fn runs(&self) -> BTreeMap<String, usize> {
        self.machine.borrow().runs.clone()
    }

    /// All paths below the root, with the content of files.
    pub fn files(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() && !path.is_symlink() {
                    found.insert(path.clone(), None);
                    walk(&path, found);
                } else {
                    found.insert(path.clone(), std::fs::read(&path).ok());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(&self.root, &mut found);
        found
    }
}

impl Systemd for FakeMachine {
    async fn reload(&mut self) -> Result<(), BackendError> {
        self.note("reload".to_owned());
        let folder = std::fs::read_dir(self.root.join(QUADLET));
        let names = folder.into_iter().flatten().filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(format!("{}.service", name.strip_suffix(".container")?))
        });
        self.machine.borrow_mut().loaded = names.collect();
        Ok(())
    }

    async fn unit(&mut self, name: &str) -> Result<UnitState, BackendError> {
        let machine = self.machine.borrow();
        let stem = name.strip_suffix(".service").unwrap_or(name);
        let (active, sub) = if machine.runs.contains_key(name) {
            ("active", "running")
        } else {
            ("inactive", "dead")
        };
        let state = UnitState {
            load: "not-found".to_owned(),
            active: active.to_owned(),
            sub: sub.to_owned(),
            result: "success".to_owned(),
            ..UnitState::default()
        };
        if !machine.loaded.contains(name) {
            return Ok(state);
        }
        Ok(UnitState {
            load: "loaded".to_owned(),
            source: format!("/{QUADLET}/{stem}.container"),
            fragment: format!("/run/systemd/generator/{name}"),
            invocation: machine
                .runs
                .get(name)
                .map(ToString::to_string)
                .unwrap_or_default(),
            active_for: Some(Duration::from_secs(60)),
            since: machine.since.get(name).copied(),
            ..state
        })
    }

    async fn instances(&mut self, _template: &str) -> Result<Vec<String>, BackendError> {
        Ok(Vec::new())
    }

    async fn jobs(
        &mut self,
        jobs: &[(Verb, String)],
        _limit: Duration,
    ) -> Vec<(String, BackendError)> {
        for (verb, name) in jobs {
            self.note(format!("{verb:?} {name}"));
            let number = self.touched();
            let Machine { runs, since, .. } = &mut *self.machine.borrow_mut();
            since.insert(name.clone(), Timestamp::now());
            match verb {
                Verb::Stop => runs.remove(name),
                Verb::Start | Verb::Restart => runs.insert(name.clone(), number),
            };
        }
        Vec::new()
    }

    async fn enable(&mut self, name: &str) -> Result<(), BackendError> {
        self.note(format!("enable {name}"));
        Ok(())
    }

    async fn disable(&mut self, name: &str) -> Result<(), BackendError> {
        self.note(format!("disable {name}"));
        Ok(())
    }

    async fn reset_failed(&mut self, name: &str) -> Result<(), BackendError> {
        self.note(format!("reset {name}"));
        Ok(())
    }

    async fn journal(&mut self, _name: &str) -> Vec<String> {
        Vec::new()
    }

    async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }

    fn look_again(&mut self, _after: Option<Duration>) {}

    async fn is_writable(&mut self, _path: &str) -> Option<bool> {
        Some(true)
    }
}

impl Podman for FakeMachine {
    async fn has_image(&self, reference: &str) -> Result<bool, BackendError> {
        Ok(self.machine.borrow().images.contains(reference))
    }

    async fn pull(&self, reference: &str) -> Result<(), BackendError> {
        self.note(format!("pull {reference}"));
        let images = &mut self.machine.borrow_mut().images;
        images.insert(reference.to_owned());
        Ok(())
    }

    async fn sweep(&self, workload: &str) -> Result<(), BackendError> {
        self.note(format!("sweep {workload}"));
        Ok(())
    }

    async fn container(&self, _name: &str) -> Result<Option<Container>, BackendError> {
        Ok(None)
    }

    async fn stop(&self, id: &str) -> Result<bool, BackendError> {
        self.note(format!("stop {id}"));
        Ok(false)
    }

    async fn prepare(&self, id: &str, _command: &[String]) -> Result<String, BackendError> {
        self.note(format!("exec {id}"));
        Ok(id.to_owned())
    }

    async fn run(&self, _command: &str) -> Result<i32, BackendError> {
        Ok(0)
    }

    async fn is_running(&self, _command: &str) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn remembers(&self) -> Option<String> {
        None
    }

    fn forget(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

impl Files for FakeMachine {
    fn look(&mut self, file: &File) -> Result<Found, BackendError> {
        Disk::new(self.root.clone()).look(file)
    }

    fn write(&mut self, file: &File, content: &[u8]) -> Result<(), BackendError> {
        self.note(format!("write {}", file.path));
        Disk::new(self.root.clone()).write(file, content)
    }

    fn written(&mut self, path: &DevicePath) -> Option<Timestamp> {
        Disk::new(self.root.clone()).written(path)
    }

    fn each_written(&mut self, tell: &mut Visit<'_>) {
        Disk::new(self.root.clone()).each_written(tell);
    }

    fn remove(&mut self, path: &DevicePath) -> Result<(), BackendError> {
        self.note(format!("remove {path}"));
        Disk::new(self.root.clone()).remove(path)
    }

    fn is_writable(&self, path: &DevicePath) -> bool {
        Disk::new(self.root.clone()).is_writable(path)
    }

    fn watch(&mut self, _paths: BTreeSet<DevicePath>) {}

    async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}
