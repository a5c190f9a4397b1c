//! The network that a pod, or a container alone, is in: names and name servers.

use k8s_openapi::api::core::v1::PodSpec;

use super::asked::SPEC;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::{Network, PublishedPort};

pub(super) const FIELDS: &[Field] = &[
    Field::carried("hostNetwork", "`Network=host`"),
    Field::carried("hostname", "`PodmanArgs=--hostname`"),
    Field::carried("hostAliases", "`PodmanArgs=--add-host`"),
    Field::carried("dnsConfig.nameservers", "`DNS=`"),
    Field::carried("dnsConfig.searches", "`DNSSearch=`"),
];

pub(super) fn network(job: &mut Job<'_>, spec: &PodSpec, ports: Vec<PublishedPort>) -> Network {
    let dns = spec.dns_config.clone().unwrap_or_default();
    let hostname = spec.hostname.clone();
    Network {
        ports,
        host: spec.host_network == Some(true),
        dns: words(job, dns.nameservers, "dnsConfig/nameservers"),
        dns_search: words(job, dns.searches, "dnsConfig/searches"),
        hostname: hostname.filter(|name| job.plain_word(name, &format!("{SPEC}/hostname"))),
        hosts: hosts(job, spec),
    }
}

/// Those that are plain words.
fn words(job: &mut Job<'_>, words: Option<Vec<String>>, field: &str) -> Vec<String> {
    let words = words.into_iter().flatten().enumerate();
    let plain = words.filter(|(n, word)| job.plain_word(word, &format!("{SPEC}/{field}/{n}")));
    plain.map(|(_, word)| word).collect()
}

fn hosts(job: &mut Job<'_>, spec: &PodSpec) -> Vec<(String, String)> {
    let mut hosts = Vec::new();
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let pointer = format!("{SPEC}/hostAliases/{index}");
        for host in alias.hostnames.iter().flatten() {
            if job.plain_word(host, &pointer) && job.plain_word(&alias.ip, &pointer) {
                hosts.push((host.clone(), alias.ip.clone()));
            }
        }
    }
    hosts
}
