//! What enabling a unit does, by what its `[Install]` says.

use super::{Environment, Files, Podman, Script, Systemd, file, path};

impl<S: Systemd, P: Podman, F: Files, T: Environment> Script<S, P, F, T> {
    async fn linked(&mut self, name: &str) {
        let state = self.systemd.unit(name).await.expect("an answer");
        let mut links = self.stage.links(name);
        links.sort();
        self.say(format!("{name} is {:?}, in {links:?}", state.file_state));
    }

    pub(super) async fn links(&mut self) {
        self.say("\n# units that are enabled");
        let (none, two) = (
            "",
            "WantedBy=multi-user.target\nRequiredBy=one.target two.target",
        );
        for (template, unit) in [
            ("keep.service", "keep.service"),
            ("each@.service", "each@a.service"),
        ] {
            let at = format!("/etc/systemd/system/{template}");
            for install in [
                none,
                two,
                "WantedBy=timers.target",
                "DefaultInstance=b",
                none,
            ] {
                let text =
                    format!("[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\n{install}\n");
                let done = self.files.write(&file(&at, &text), text.as_bytes());
                self.done(&format!("write {template} with {install:?}"), done);
                self.reload().await;
                self.linked(unit).await;
                let done = self.systemd.enable(unit).await;
                self.done(&format!("enable {unit}"), done);
                self.reload().await;
                self.linked(unit).await;
            }
            let done = self.files.write(
                &file(&at, "[Install]\nWantedBy=a.target\n"),
                b"[Install]\nWantedBy=a.target\n",
            );
            self.done(&format!("write {template}"), done);
            self.reload().await;
            let done = self.systemd.enable(unit).await;
            self.done(&format!("enable {unit}"), done);
            self.linked(unit).await;
            let done = self.systemd.disable(unit).await;
            self.done(&format!("disable {unit}"), done);
            self.linked(unit).await;
            let done = self.files.remove(&path(&at));
            self.done(&format!("remove {template}"), done);
            let done = self.systemd.enable(unit).await;
            self.done(&format!("enable {unit}"), done);
            self.reload().await;
            self.linked(unit).await;
        }
    }
}
