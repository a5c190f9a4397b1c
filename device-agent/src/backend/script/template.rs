//! Instances of a template, as a socket makes them, and a template that the machine has already.

use super::{Environment, Files, Podman, Script, Systemd, Verb, file, path};

const CONNECTION: &str = "echo@3-10.0.0.1:7-10.0.0.2:40000.service";

impl<S: Systemd, P: Podman, F: Files, T: Environment> Script<S, P, F, T> {
    async fn instances(&mut self, template: &str) {
        let found = self.systemd.instances(template).await;
        let mut found = found.expect("an answer");
        found.sort();
        self.say(format!("instances of {template}: {found:?}"));
    }

    pub(super) async fn template(&mut self) {
        self.say("\n# instances of a template");
        let at = "/etc/systemd/system/echo@.service";
        let text = "[Service]\nExecStart=/usr/bin/sleep infinity\n";
        let done = self.files.write(&file(at, text), text.as_bytes());
        self.done("write echo@.service", done);
        self.instances("echo@.service").await;
        self.reload().await;
        self.unit(CONNECTION).await;
        self.instances("echo@.service").await;
        self.jobs(&[(Verb::Start, CONNECTION), (Verb::Start, "echo@b.service")])
            .await;
        self.unit(CONNECTION).await;
        self.instances("echo@.service").await;
        self.jobs(&[(Verb::Stop, "echo@b.service")]).await;
        self.instances("echo@.service").await;
        let done = self.files.remove(&path(at));
        self.done("remove echo@.service", done);
        self.reload().await;
        self.unit(CONNECTION).await;
        self.instances("echo@.service").await;
        self.jobs(&[(Verb::Stop, CONNECTION)]).await;
        self.instances("echo@.service").await;
        self.unit(CONNECTION).await;
        self.stage.host_unit("their@.service");
        self.reload().await;
        self.unit("their@any.service").await;
    }
}
