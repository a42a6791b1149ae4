//! The image's users and groups: the machine's system accounts without passwords, root, and one user.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::plan::Plan;

/// The ordinary user's uid and gid.
pub(super) const USER_ID: u32 = 1000;
/// Their home directory.
pub(super) const HOME: &str = "home/user";
/// Their name, as in other sandboxes of the field.
const USER: &str = "user";

/// Used for a machine whose own `/etc/passwd` cannot be read.
const LEAST_PASSWD: &str =
    "daemon:x:1:1::/usr/sbin:/usr/sbin/nologin\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n";
const LEAST_GROUP: &str = "daemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n";

pub(super) fn add(plan: &mut Plan, machine: &Path) {
    let shell = if machine.join("usr/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let passwd = system_lines(machine, "etc/passwd", 7, LEAST_PASSWD);
    let group = system_lines(machine, "etc/group", 4, LEAST_GROUP);
    let mut passwd_text = format!("root:x:0:0:root:/root:{shell}\n");
    let mut shadow_text = "root:*:19000:0:99999:7:::\n".to_owned();
    for fields in &passwd {
        // The fourth field says who the person is: none of a sandbox's business.
        passwd_text += &format!("{}:x:{}:{}::{}:{}\n", fields[0], fields[2], fields[3], fields[5], fields[6]);
        shadow_text += &format!("{}:*:19000:0:99999:7:::\n", fields[0]);
    }
    passwd_text += &format!("{USER}:x:{USER_ID}:{USER_ID}::/{HOME}:{shell}\n");
    shadow_text += &format!("{USER}:*:19000:0:99999:7:::\n");
    let mut group_text = "root:x:0:\n".to_owned();
    let mut gshadow_text = "root:*::\n".to_owned();
    for fields in &group {
        group_text += &format!("{}:x:{}:\n", fields[0], fields[2]);
        gshadow_text += &format!("{}:*::\n", fields[0]);
    }
    group_text += &format!("{USER}:x:{USER_ID}:\n");
    gshadow_text += &format!("{USER}:!::\n");
    plan.file("etc/passwd", 0o644, passwd_text);
    plan.file("etc/group", 0o644, group_text);
    plan.file("etc/shadow", 0o600, shadow_text);
    plan.file("etc/gshadow", 0o600, gshadow_text);
    add_homes(plan, machine);
}

/// The system accounts (below 1000, and nobody) of a passwd or group file, except root.
fn system_lines(machine: &Path, path: &str, width: usize, least: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(machine.join(path)).unwrap_or_else(|_| least.to_owned());
    let mut names = BTreeSet::from(["root".to_owned(), USER.to_owned()]);
    let mut found = Vec::new();
    for line in text.lines() {
        let fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        let id = fields.get(2).and_then(|id| id.parse::<u32>().ok());
        let system = id.is_some_and(|id| (1..1000).contains(&id) || id == 65_534);
        if fields.len() == width && system && names.insert(fields[0].clone()) {
            found.push(fields);
        }
    }
    found
}

fn add_homes(plan: &mut Plan, machine: &Path) {
    plan.dir(HOME, 0o755);
    for (file, name) in [("dot.bashrc", ".bashrc"), ("dot.profile", ".profile")] {
        if let Ok(content) = fs::read(machine.join("usr/share/base-files").join(file)) {
            plan.file(Path::new("root").join(name), 0o644, content.clone());
            plan.file(Path::new(HOME).join(name), 0o644, content);
        }
    }
}
