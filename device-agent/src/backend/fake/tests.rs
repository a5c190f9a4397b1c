use std::collections::BTreeMap;

use super::super::script::{EXITS, Environment, HELLO, Script, TRANSCRIPT};
use super::{Definition, Entry, World};

impl Environment for World {
    fn host_unit(&mut self, name: &str) {
        let source = format!("/etc/systemd/system/{name}");
        let text = "[Service]\nExecStart=/usr/bin/sleep infinity\n".to_owned();
        let definition = Definition { source, text };
        self.state().host.insert(name.to_owned(), definition);
    }

    fn stray(&mut self, workload: &str) {
        let mut state = self.state();
        state
            .containers
            .insert(workload.to_owned(), workload.to_owned());
    }

    fn chmod(&mut self, path: &str) {
        let mut state = self.state();
        let Some(Entry::File { fits, .. }) = state.files.get_mut(path) else {
            panic!("{path} is no file");
        };
        *fits = false;
    }

    fn lose(&mut self, image: &str) {
        self.state().images.remove(image);
    }

    fn links(&mut self, name: &str) -> Vec<String> {
        let state = self.state();
        let links = state.enabled.get(name);
        links.into_iter().flatten().cloned().collect()
    }

    fn containers(&mut self) -> Vec<String> {
        let state = self.state();
        let names = state.containers.keys();
        names
            .map(|unit| unit.trim_end_matches(".service").to_owned())
            .collect()
    }
}

/// The lab plays the same script on a device: `a_device_does_what_the_fake_does`.
#[tokio::test]
async fn the_fake_does_what_a_device_does() {
    let world = World::default();
    {
        let mut state = world.state();
        state.registry.extend([HELLO, EXITS].map(str::to_owned));
        let exits = ["bad.service", "loop.service"];
        let exits = exits.map(|unit| (unit.to_owned(), (3, "bye")));
        state.faults.exits.extend(exits);
    }
    let play = Script {
        systemd: world.clone(),
        podman: world.clone(),
        files: world.clone(),
        stage: world,
        said: String::new(),
        runs: BTreeMap::new(),
    };
    let said = play.all().await;
    for (number, (fake, device)) in (1..).zip(said.lines().zip(TRANSCRIPT.lines())) {
        assert_eq!(fake, device, "line {number} of script.txt");
    }
    assert_eq!(said.lines().count(), TRANSCRIPT.lines().count());
}
