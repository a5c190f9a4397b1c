//! What a container may do: users, capabilities, privileges.

use flotta_bundle::code;

use super::asked::Asked;
use super::field::Field;
use crate::compile::job::Job;
use crate::compile::unit::Security;

pub(super) const FIELDS: &[Field] = &[
    Field::carried("securityContext.runAsUser", "`User=`"),
    Field::carried("securityContext.runAsGroup", "`Group=`"),
    Field::carried("containers[].securityContext.runAsUser", "`User=`"),
    Field::carried("containers[].securityContext.runAsGroup", "`Group=`"),
    Field::carried(
        "containers[].securityContext.privileged",
        "`PodmanArgs=--privileged`",
    ),
    Field::carried(
        "containers[].securityContext.readOnlyRootFilesystem",
        "`ReadOnly=`",
    ),
    Field::carried(
        "containers[].securityContext.allowPrivilegeEscalation",
        "`NoNewPrivileges=`",
    ),
    Field::carried(
        "containers[].securityContext.capabilities",
        "`AddCapability=` and `DropCapability=`",
    ),
];

/// The container's own words win over the pod's.
pub(super) fn security(job: &mut Job<'_>, asked: Asked<'_>) -> Security {
    let own = asked.container.security_context.clone().unwrap_or_default();
    let pod = asked.spec.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let pointer = asked.at("securityContext/capabilities");
    Security {
        user: own.run_as_user.or(pod.run_as_user),
        group: own.run_as_group.or(pod.run_as_group),
        privileged: own.privileged == Some(true),
        read_only: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        add_capabilities: names(job, capabilities.add, &pointer),
        drop_capabilities: names(job, capabilities.drop, &pointer),
    }
}

/// Those that are names of capabilities.
fn names(job: &mut Job<'_>, names: Option<Vec<String>>, pointer: &str) -> Vec<String> {
    let mut names = names.unwrap_or_default();
    names.retain(|name| {
        let good = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !good {
            let message = format!("{name:?} is not a capability");
            job.refuse(code::SCHEMA, pointer, message);
        }
        good
    });
    names
}
