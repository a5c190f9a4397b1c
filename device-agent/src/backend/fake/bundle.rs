//! Builds manifests as the renderer writes them, from a short description.

use std::collections::BTreeMap;

use flotta_bundle::manifest::{FileKind, Image, Mode, Pull, SCHEMA, Settings, Unit, Wanted};
use flotta_bundle::path::UNITS;
use flotta_bundle::{DevicePath, Digest, Manifest, Owner};

use super::{File, QUADLET};

/// The short description of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Workload {
    pub name: String,
    pub image: String,
    pub pull: Pull,
    pub restart: &'static str,
    /// A line in each container's file, to make it differ.
    pub says: String,
    /// A line in the pod's file.
    pub pod_says: String,
    /// Files that its (first) container mounts.
    pub config: BTreeMap<String, String>,
    pub port: Option<u16>,
    /// Containers of its pod; none for a container alone.
    pub members: Vec<&'static str>,
    /// Whether it has a network of its own: a unit that is started only by the units that need it.
    pub network: bool,
    /// Set for a job that ends: it is started by a timer of its own, or once after each change.
    pub job: Option<Job>,
}

/// What starts a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    Timer,
    Change,
}

impl Workload {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: "hello:1".to_owned(),
            pull: Pull::Missing,
            restart: "always",
            says: String::new(),
            pod_says: String::new(),
            config: BTreeMap::new(),
            port: None,
            members: Vec::new(),
            network: false,
            job: None,
        }
    }

    pub fn says(mut self, text: &str) -> Self {
        text.clone_into(&mut self.says);
        self
    }

    pub fn image(mut self, reference: &str, pull: Pull) -> Self {
        (self.image, self.pull) = (reference.to_owned(), pull);
        self
    }

    pub fn config(mut self, key: &str, text: &str) -> Self {
        self.config.insert(key.to_owned(), text.to_owned());
        self
    }

    pub fn pod(mut self, members: &[&'static str]) -> Self {
        self.members = members.to_vec();
        self
    }

    pub fn restart(mut self, restart: &'static str) -> Self {
        self.restart = restart;
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    pub fn network(mut self) -> Self {
        self.network = true;
        self
    }

    pub fn job(mut self, job: Job) -> Self {
        (self.job, self.restart) = (Some(job), "no");
        self
    }

    /// The units that run a container.
    pub fn containers(&self) -> Vec<String> {
        let member = |member: &&str| format!("{}-{member}.service", self.name);
        if self.members.is_empty() {
            vec![format!("{}.service", self.name)]
        } else {
            self.members.iter().map(member).collect()
        }
    }
}

/// A manifest and the content of its files.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub manifest: Manifest,
    pub contents: Vec<Vec<u8>>,
    pub containers: BTreeMap<String, String>,
}

pub fn path(text: &str) -> DevicePath {
    text.parse().expect("a path that a release may use")
}

/// A file of the fleet.
pub fn file(at: &str, content: &[u8]) -> File {
    let quadlet = at.starts_with(QUADLET) || at.starts_with(UNITS);
    File {
        path: path(at),
        mode: Mode::new(0o644),
        owner: "root".to_owned(),
        group: "root".to_owned(),
        digest: Digest::of(content),
        size: content.len() as u64,
        kind: if quadlet {
            FileKind::Quadlet
        } else {
            FileKind::Data
        },
        belongs_to: None,
    }
}

impl Bundle {
    pub fn of(workloads: &[Workload]) -> Self {
        let mut desk = Self {
            manifest: Manifest {
                schema: SCHEMA,
                files: Vec::new(),
                units: Vec::new(),
                images: Vec::new(),
                health: Vec::new(),
                settings: Settings::default(),
            },
            contents: Vec::new(),
            containers: BTreeMap::new(),
        };
        for workload in workloads {
            desk.add(workload);
        }
        let bytes = desk.manifest.encode();
        desk.manifest = Manifest::parse(&bytes).expect("a manifest by the rules");
        desk
    }

    fn add(&mut self, workload: &Workload) {
        let Workload { name, image, .. } = workload;
        let folder = format!("/etc/flotta/workloads/{name}/conf");
        let config = workload.config.iter();
        let config: Vec<_> = config
            .map(|(key, text)| self.put(&format!("{folder}/{key}"), text.clone()))
            .collect();
        let mut common = Vec::new();
        let mut network = String::new();
        if workload.network {
            let text = format!("[Network]\nNetworkName={name}\n");
            let path = self.put(&format!("{QUADLET}{name}.network"), text);
            let unit = format!("{name}-network.service");
            self.unit(unit, name, Wanted::Loaded, vec![path.clone()]);
            network = format!("Network={name}.network\n");
            common.push(path);
        }
        let mut ports = String::new();
        if let Some(port) = workload.port {
            ports = format!("PublishPort={port}:80\n");
        }
        let mut pod = String::new();
        if !workload.members.is_empty() {
            let text = format!("[Pod]\nPodName={name}\n{ports}{}\n", workload.pod_says);
            ports.clear();
            let path = self.put(&format!("{QUADLET}{name}.pod"), text);
            self.unit(
                format!("{name}-pod.service"),
                name,
                Wanted::Active,
                vec![path],
            );
            pod = format!("Pod={name}.pod\n");
        }
        let mut config = Some(config);
        for unit in workload.containers() {
            let stem = unit.trim_end_matches(".service");
            let mounted = config.take().unwrap_or_default();
            let volume = if mounted.is_empty() {
                String::new()
            } else {
                format!("Volume={folder}:/etc/conf:ro\n")
            };
            let text = format!(
                "[Container]\nImage={image}\nContainerName={stem}\nLabel=flotta.workload={name}\n\
                 {ports}{pod}{network}{volume}{}\n[Service]\nRestart={}\n",
                workload.says, workload.restart
            );
            let text = match workload.job {
                None => text,
                Some(Job::Timer) => text + "Type=oneshot\n",
                Some(Job::Change) => text + "Type=oneshot\n[Install]\nWantedBy=multi-user.target\n",
            };
            if workload.job == Some(Job::Timer) {
                self.timer(stem, name);
            }
            let wanted = match workload.job {
                None => Wanted::Active,
                Some(Job::Timer) => Wanted::Loaded,
                Some(Job::Change) => Wanted::Once,
            };
            let own = self.put(&format!("{QUADLET}{stem}.container"), text);
            let inputs = mounted.into_iter().chain(common.clone()).chain([own]);
            self.unit(unit.clone(), name, wanted, inputs.collect());
            self.containers.insert(unit, name.clone());
        }
        let images = &mut self.manifest.images;
        if let Some(known) = images.iter_mut().find(|known| known.reference == *image) {
            known.pull = known.pull.min(workload.pull);
            known.workloads.push(Owner::workload(name));
        } else {
            images.push(Image {
                reference: image.clone(),
                digest: None,
                pull: workload.pull,
                workloads: vec![Owner::workload(name)],
            });
        }
    }

    /// Adds a workload of a socket, for each of whose connections systemd starts an instance of a template.
    #[must_use]
    pub fn accept(mut self, name: &str) -> Self {
        let text = "[Socket]\nListenStream=7\nAccept=yes\n[Install]\nWantedBy=sockets.target\n";
        let socket = self.put(&format!("{UNITS}{name}.socket"), text.to_owned());
        let text = "[Service]\nExecStart=/usr/bin/sleep infinity\n".to_owned();
        self.put(&format!("{UNITS}{name}@.service"), text);
        if let Some(template) = self.manifest.files.last_mut() {
            template.belongs_to = Some(Owner::workload(name));
        }
        let unit = format!("{name}.socket");
        self.unit(unit, name, Wanted::Active, vec![socket]);
        let bytes = self.manifest.encode();
        self.manifest = Manifest::parse(&bytes).expect("a manifest by the rules");
        self
    }

    fn timer(&mut self, stem: &str, workload: &str) {
        let text = "[Timer]\nOnCalendar=hourly\n[Install]\nWantedBy=timers.target\n";
        let path = self.put(&format!("{UNITS}{stem}.timer"), text.to_owned());
        self.unit(
            format!("{stem}.timer"),
            workload,
            Wanted::Active,
            vec![path],
        );
    }

    fn put(&mut self, at: &str, text: String) -> DevicePath {
        self.manifest.files.push(file(at, text.as_bytes()));
        self.contents.push(text.into_bytes());
        path(at)
    }

    fn unit(&mut self, name: String, workload: &str, wanted: Wanted, restart_on: Vec<DevicePath>) {
        let workload = Owner::workload(workload);
        self.manifest.units.push(Unit {
            name,
            workload,
            wanted,
            restart_on,
        });
    }
}
