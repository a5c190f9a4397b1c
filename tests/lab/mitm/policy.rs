//! What the device's owner lets a release do, when it is signed as it should be.

use flotta_bundle::code;

use super::attacks::{Attack, elsewhere};
use super::{events, fleet};
use crate::device::{Device, text, wait};
use crate::site::{Site, page};

const NAME: &str = "owned";
const DROP_IN: &str = "/etc/systemd/system/flotta-agent.service.d/10-ours.conf";
const CONF: &str = "/etc/myapp/conf";

/// Waits until the server has heard that the device refuses a path.
fn refused(site: &Site, device: &Device, path: &str) {
    wait(&format!("{path} is refused"), || {
        let events = events(site);
        let words = ["Refused", code::PATH_FORBIDDEN.id, path];
        let mut said = events.iter().map(|(_, said)| said);
        let found = said.any(|said| words.iter().all(|word| said.contains(word)));
        found
            .then_some(())
            .ok_or_else(|| format!("{events:#?}\n{}", device.log()))
    });
}

fn is_there(device: &Device, path: &str) -> bool {
    device.run(&["test", "-e", path]).status.success()
}

#[test]
fn a_release_writes_where_the_devices_owner_allows_it_and_nowhere_else() {
    let (site, device, mitm) = fleet(NAME);
    let commit = |text| site.commit(text, &[("web.yaml", &page("web", 8080, text))]);
    let before = device.containers();

    mitm.record().attack = Some(Attack::Signed(|manifest| elsewhere(&manifest, DROP_IN)));
    commit("with a drop-in of the agent");
    refused(&site, &device, DROP_IN);
    for command in ["verify", "diff"] {
        let said = device.run(&["flotta-agent", command]);
        let (status, said) = (said.status.code(), text(&said.stdout));
        assert_eq!(status, Some(1), "{command}: {said}");
        let words = [code::PATH_FORBIDDEN.id, DROP_IN, "it is Flotta's own"];
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }

    mitm.record().attack = Some(Attack::Signed(|manifest| elsewhere(&manifest, CONF)));
    commit("with a file for the host");
    refused(&site, &device, CONF);
    device.shows(8080, "first");
    assert_eq!(device.containers(), before, "what runs goes on");
    assert!(!is_there(&device, DROP_IN) && !is_there(&device, CONF));

    // as soon as it is allowed, and with no restart
    device.write("/etc/flotta/policy.toml", "allow = [\"/etc/myapp/\"]\n");
    device.shows(8080, "with a file for the host");
    assert_eq!(device.exec(&["cat", CONF]), "x");

    mitm.record().attack = None;
    commit("without it");
    device.shows(8080, "without it");
    site.in_sync(NAME);
    assert!(!is_there(&device, CONF), "it goes with the release");
}
