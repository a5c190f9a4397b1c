//! The network of a pod, or of a container without one: names, name servers and kernel parameters.

use flotta_bundle::code;
use flotta_bundle::name::{NameError, check_label, check_subdomain};
use k8s_openapi::api::core::v1::PodSpec;

use super::context::SPEC;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::{Network, PublishedPort};

pub(super) const FIELDS: &[Field] = &[
    Field::supported("hostNetwork", "`Network=host`"),
    Field::supported("hostname", "`PodmanArgs=--hostname`"),
    Field::supported("hostnameOverride", "`PodmanArgs=--hostname`"),
    Field::supported("setHostnameAsFQDN", "an error when it is true"),
    Field::no_effect("subdomain", "a device has no cluster domain"),
    Field::supported("hostAliases", "`PodmanArgs=--add-host`"),
    Field::supported("dnsConfig.nameservers", "`DNS=`"),
    Field::supported("dnsConfig.searches", "`DNSSearch=`"),
    Field::supported("dnsConfig.options", "`PodmanArgs=--dns-option`"),
    Field::supported(
        "dnsPolicy",
        "the device's name servers, unless dnsConfig names others",
    ),
    Field::supported("securityContext.sysctls", "`PodmanArgs=--sysctl`"),
];

/// Kernel parameters of the IPC namespace, in addition to those that begin with `fs.mqueue.`.
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

pub(super) fn network(job: &mut Job<'_>, spec: &PodSpec, ports: Vec<PublishedPort>) -> Network {
    let dns = spec.dns_config.clone().unwrap_or_default();
    let host = spec.host_network == Some(true);
    let hostname = hostname(job, spec);
    Network {
        ports,
        host,
        dns: addresses(job, spec),
        dns_search: words(job, dns.searches, "dnsConfig/searches"),
        dns_options: dns_options(job, spec),
        hostname,
        hosts: hosts(job, spec),
        sysctls: sysctls(job, spec),
    }
}

/// Returns the host name of a pod that does not set one.
pub(super) fn host_name(pod: &str) -> String {
    // Kubernetes truncates names that are too long in the same way.
    pod.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

fn hostname(job: &mut Job<'_>, spec: &PodSpec) -> Option<String> {
    let mut good = |name: &Option<String>,
                    field: &str,
                    check: fn(&str) -> Result<(), NameError>| {
        let name = name.clone().filter(|name| !name.is_empty())?;
        let pointer = format!("{SPEC}/{field}");
        match check(&name) {
            Ok(()) if spec.host_network == Some(true) => {
                let message = format!(
                    "`{field}` has no effect with hostNetwork: the name is the device's, as in Kubernetes"
                );
                job.note(&pointer, message);
                None
            }
            Ok(()) => Some(name),
            Err(error) => {
                job.refuse(code::BAD_NAME, &pointer, error.to_string());
                None
            }
        }
    };
    let name = good(&spec.hostname, "hostname", check_label);
    let override_ = good(&spec.hostname_override, "hostnameOverride", check_host);
    if spec.set_hostname_as_fqdn == Some(true) {
        let message = "`setHostnameAsFQDN: true` is not supported on devices: there is no cluster domain; set the name with hostnameOverride";
        let pointer = format!("{SPEC}/setHostnameAsFQDN");
        job.refuse(code::UNSUPPORTED_FIELD, &pointer, message);
    }
    override_.or(name)
}

/// Checks a host name, which has at most 64 characters in Linux.
fn check_host(name: &str) -> Result<(), NameError> {
    if name.len() > 64 {
        return check_label(name);
    }
    check_subdomain(name)
}

/// Returns the words without special characters, and reports the others.
fn words(job: &mut Job<'_>, words: Option<Vec<String>>, field: &str) -> Vec<String> {
    let words = words.into_iter().flatten().enumerate();
    let plain = words.filter(|(n, word)| job.plain_word(word, &format!("{SPEC}/{field}/{n}")));
    plain.map(|(_, word)| word).collect()
}

/// Returns the name servers. The policy `None` needs at least one.
fn addresses(job: &mut Job<'_>, spec: &PodSpec) -> Vec<String> {
    let dns = spec.dns_config.clone().unwrap_or_default();
    let all = dns.nameservers.unwrap_or_default();
    match spec.dns_policy.as_deref() {
        None | Some("Default" | "ClusterFirst" | "ClusterFirstWithHostNet") => {}
        Some("None") if !all.is_empty() => {}
        Some("None") => {
            let message = "policy `None` needs name servers in dnsConfig";
            job.refuse(code::SCHEMA, &format!("{SPEC}/dnsPolicy"), message);
        }
        Some(other) => {
            let message =
                format!("`{other}`: use Default, ClusterFirst, ClusterFirstWithHostNet or None");
            job.refuse(code::SCHEMA, &format!("{SPEC}/dnsPolicy"), message);
        }
    }
    let all = all.into_iter().enumerate();
    let good = all.filter(|(n, server)| {
        is_address(job, server, &format!("{SPEC}/dnsConfig/nameservers/{n}"))
    });
    good.map(|(_, server)| server).collect()
}

fn is_address(job: &mut Job<'_>, text: &str, pointer: &str) -> bool {
    let good = text.parse::<std::net::IpAddr>().is_ok();
    if !good {
        let message = format!("`{text}` is not an IP address");
        job.refuse(code::SCHEMA, pointer, message);
    }
    good
}

fn dns_options(job: &mut Job<'_>, spec: &PodSpec) -> Vec<String> {
    let options = spec
        .dns_config
        .iter()
        .flat_map(|dns| dns.options.iter().flatten());
    let mut out = Vec::new();
    for (n, option) in options.enumerate() {
        let name = option.name.clone().unwrap_or_default();
        let value = option.value.as_ref();
        let text = value.map_or(name.clone(), |value| format!("{name}:{value}"));
        if job.plain_word(&text, &format!("{SPEC}/dnsConfig/options/{n}")) {
            out.push(text);
        }
    }
    out
}

/// Returns the kernel parameters of the pod, written with dots.
fn sysctls(job: &mut Job<'_>, spec: &PodSpec) -> Vec<(String, String)> {
    let context = spec.security_context.iter();
    let all = context.flat_map(|context| context.sysctls.iter().flatten());
    let mut out = Vec::new();
    for (n, sysctl) in all.enumerate() {
        let pointer = format!("{SPEC}/securityContext/sysctls/{n}");
        let name = with_dots(&sysctl.name);
        let of_network = name.starts_with("net.");
        let of_ipc = name.starts_with("fs.mqueue.") || OF_IPC.contains(&name.as_str());
        let shared = match (of_network, of_ipc) {
            (true, _) => spec.host_network.filter(|on| *on).map(|_| "hostNetwork"),
            (_, true) => spec.host_ipc.filter(|on| *on).map(|_| "hostIPC"),
            _ => {
                let message = format!(
                    "`{name}` applies to the whole device, not to a pod: set it on the device"
                );
                job.refuse(code::UNSUPPORTED_FIELD, &format!("{pointer}/name"), message);
                continue;
            }
        };
        if let Some(field) = shared {
            let message =
                format!("`{name}` cannot be set with {field}: it would change the device");
            job.refuse(code::SCHEMA, &format!("{pointer}/name"), message);
        } else if job.plain_word(&name, &format!("{pointer}/name"))
            && job.word(&sysctl.value, &format!("{pointer}/value"))
        {
            out.push((name, sysctl.value.clone()));
        }
    }
    out
}

/// Returns a name with dots. In Kubernetes `net/ipv4/conf/eth0.1/x` means `net.ipv4.conf.eth0/1.x`.
fn with_dots(name: &str) -> String {
    match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some("/") => {
            let swap = |c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

fn hosts(job: &mut Job<'_>, spec: &PodSpec) -> Vec<(String, String)> {
    let mut hosts = Vec::new();
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let pointer = format!("{SPEC}/hostAliases/{index}");
        if !is_address(job, &alias.ip, &format!("{pointer}/ip")) {
            continue;
        }
        for (n, host) in alias.hostnames.iter().flatten().enumerate() {
            if job.plain_word(host, &format!("{pointer}/hostnames/{n}")) {
                hosts.push((host.clone(), alias.ip.clone()));
            }
        }
    }
    hosts
}
