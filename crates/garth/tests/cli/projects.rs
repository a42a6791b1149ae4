use snapbox::{assert_data_eq, str};

use crate::snapshot::{of, with};
use crate::yard::Yard;

#[test]
fn a_project_is_made_listed_changed_and_deleted() {
    let yard = Yard::new();
    assert_data_eq!(
        of(&yard, &["ls"]),
        str![[r#"
exit 0
--- stdout
NAME  STATE  RUNTIME  IMAGE  MEMORY  CREATED
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["create", "web", "--memory", "256MiB", "--label", "team=core"]),
        str![[r#"
exit 0
--- stdout
web
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["ls", "-q", "--label", "team=core"]),
        str![[r#"
exit 0
--- stdout
web
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["ls", "-q", "--label", "team=other"]),
        str![[r#"
exit 0
--- stdout
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["ls", "-q", "--running"]),
        str![[r#"
exit 0
--- stdout
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["start", "web", "web"]),
        str![[r#"
exit 0
--- stdout
web
web
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["set", "web", "--memory", "512MiB", "-e", "A=1"]),
        str![[r#"
exit 0
--- stdout
web
with the next start (garth restart web): env
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["set", "web"]),
        str![[r#"
exit 2
--- stdout
--- stderr
garth: there is nothing to change
  hint: see garth set --help

"#]]
    );
    assert_data_eq!(
        of(&yard, &["stop", "--grace", "0", "web"]),
        str![[r#"
exit 0
--- stdout
web
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["rm", "-f", "web"]),
        str![[r#"
exit 0
--- stdout
web
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["rm", "-f", "web"]),
        str![[r#"
exit 0
--- stdout
--- stderr

"#]]
    );
}

#[test]
fn what_is_not_there_or_there_already_has_a_code_of_its_own() {
    let yard = Yard::new();
    yard.ok(&["create", "web"]);
    assert_data_eq!(
        of(&yard, &["create", "web"]),
        str![[r#"
exit 4
--- stdout
--- stderr
garth: project web exists already
  hint: choose another name, or `garth exec web` to use that project

"#]]
    );
    assert_data_eq!(
        of(&yard, &["create", "web", "--json"]),
        str![[r#"
exit 4
--- stdout
{"error":{"code":"already_exists","hint":"choose another name, or `garth exec web` to use that project","message":"project web exists already"}}
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["create", "x", "--image", "nope"]),
        str![[r#"
exit 3
--- stdout
--- stderr
garth: there is no image nope
  hint: `garth image ls` shows the images there are; `garth image import` makes one

"#]]
    );
    assert_data_eq!(
        of(&yard, &["inspect", "nope"]),
        str![[r#"
exit 3
--- stdout
--- stderr
garth: there is no project nope
  hint: `garth ls -a` shows the projects there are

"#]]
    );
    assert_data_eq!(
        of(&yard, &["inspect", "nope", "--json"]),
        str![[r#"
exit 3
--- stdout
{"error":{"code":"not_found","hint":"`garth ls -a` shows the projects there are","message":"there is no project nope"}}
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["stop", "nope", "web"]),
        str![[r#"
exit 3
--- stdout
web
--- stderr
garth: there is no project nope
  hint: `garth ls -a` shows the projects there are

"#]]
    );
    assert_data_eq!(
        of(&yard, &["image", "rm", "nope"]),
        str![[r#"
exit 3
--- stdout
--- stderr
garth: cannot remove the image nope: there is no image nope
  hint: `garth image ls` shows the images there are; `garth image import` makes one

"#]]
    );
    assert_data_eq!(
        of(&yard, &["image", "rm", "host"]),
        str![[r#"
exit 4
--- stdout
--- stderr
garth: cannot remove the image host: image host is built in and cannot be replaced or removed

"#]]
    );
    assert_data_eq!(
        of(&yard, &["create", "x", "--runtime", "default", "--at-least", "sysbox"]),
        str![[r#"
exit 5
--- stdout
--- stderr
garth: the runtime default is weaker than sysbox, the least that this project may have
  hint: ask for --runtime sysbox or a stronger one

"#]]
    );
    assert_data_eq!(
        of(&yard, &["create", "x", "--at-least", "strong"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: invalid value 'strong' for '--at-least <LEVEL>': unknown runtime "strong": use default, sysbox or microvm

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        of(&yard, &["create", "x", "--runtime", "microvm/firecracker"]),
        str![[r#"
exit 8
--- stdout
--- stderr
garth: the runtime microvm/firecracker is not available here: firecracker is not installed[..]
  hint: `garth doctor` says what each runtime needs

"#]]
    );
    assert_data_eq!(
        of(&yard, &["create", "x", "--memory", "1MiB"]),
        str![[r#"
exit 2
--- stdout
--- stderr
garth: the memory limit 1 MiB is outside 16 MiB and above

"#]]
    );
    assert_data_eq!(
        of(&yard, &["image", "import", "x", "/no/such/file.tar"]),
        str![[r#"
exit 3
--- stdout
--- stderr
garth: cannot open /no/such/file.tar: No such file or directory

"#]]
    );
}

#[test]
fn a_run_by_name_uses_the_project_as_it_is_or_refuses() {
    let yard = Yard::new();
    assert_data_eq!(
        of(&yard, &["run", "--name", "web", "-e", "A=1", "--", "sh", "-c", "echo $A > /root/f"]),
        str![[r#"
exit 0
--- stdout
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["run", "--name", "web", "--", "sh", "-c", "cat /root/f; echo $A"]),
        str![[r#"
exit 0
--- stdout
1
1
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["run", "--name", "web", "--memory", "64MiB", "--", "true"]),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: project web exists and is not as asked
  hint: see garth inspect web; change it with garth set web, or leave the flags out

"#]]
    );
    assert_data_eq!(
        of(&yard, &["run", "--name", "web", "--rm", "--", "true"]),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: project web exists already
  hint: choose another name, or `garth exec web` to use that project

"#]]
    );
    assert_data_eq!(
        of(&yard, &["run", "--name", "web"]),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: there is no command, and the image host has none
  hint: put the command after --, as in: garth run -- uname -a

"#]]
    );
    let name_and_process = yard.ok(&["run", "-d", "--", "sh", "-c", "exit 3"]);
    let (name, process) = name_and_process.split_once(' ').expect("two words");
    assert_data_eq!(
        with(&yard, &["wait", name, process], &[]),
        str![[r#"
exit 3
--- stdout
--- stderr

"#]]
    );
    let both = yard.project_names();
    assert!(both.len() == 2 && both.iter().any(|listed| listed == name), "{both:?}");
}
