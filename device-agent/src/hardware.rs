//! Facts about the machine, for people to recognise it by.

use std::path::Path;

use flotta_bundle::wire::Hardware;

use crate::durable;

/// Longest text of each kind, in characters.
const MAX_TEXT: usize = 128;

/// Reads model, serial number and system under `root`; what is missing is empty.
pub fn read(root: &Path) -> Hardware {
    let text = |path: &str| {
        let bytes = durable::read(&root.join(path), 4096).ok().flatten();
        clean(&String::from_utf8_lossy(&bytes.unwrap_or_default()))
    };
    let vendor = text("sys/class/dmi/id/sys_vendor");
    let product = text("sys/class/dmi/id/product_name");
    let dmi = match product.strip_prefix(&vendor) {
        Some(_) => product,
        None => clean(&format!("{vendor} {product}")),
    };
    // boards without DMI have a device tree
    let or = |first: String, second: &str| {
        if first.is_empty() {
            text(second)
        } else {
            first
        }
    };
    Hardware {
        model: or(dmi, "sys/firmware/devicetree/base/model"),
        serial: or(
            text("sys/class/dmi/id/product_serial"),
            "sys/firmware/devicetree/base/serial-number",
        ),
        architecture: std::env::consts::ARCH.to_owned(),
        os: durable::read(&root.join("etc/os-release"), 16 << 10)
            .ok()
            .flatten()
            .map(|bytes| pretty_name(&String::from_utf8_lossy(&bytes)))
            .unwrap_or_default(),
    }
}

/// Kernel boot id: tells a reboot from a restart.
pub fn boot_id(root: &Path) -> String {
    durable::read(&root.join("proc/sys/kernel/random/boot_id"), 64)
        .ok()
        .flatten()
        .map(|bytes| clean(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_default()
}

/// `PRETTY_NAME` of os-release(5).
fn pretty_name(text: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|value| clean(value.trim_matches(['"', '\''])))
        .unwrap_or_default()
}

fn clean(text: &str) -> String {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_dmi_or_the_device_tree() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        put("etc/os-release", "NAME=Debian\nPRETTY_NAME=\"Debian 13\"\n");
        put("sys/firmware/devicetree/base/model", "Raspberry Pi 4\0");
        let hardware = read(root.path());
        assert_eq!(
            (&*hardware.model, &*hardware.os),
            ("Raspberry Pi 4", "Debian 13")
        );
        put("sys/class/dmi/id/sys_vendor", "Dell\n");
        put("sys/class/dmi/id/product_name", "Edge 3200\n");
        assert_eq!(read(root.path()).model, "Dell Edge 3200");
    }
}
