//! Sandboxes of all levels side by side, behind one daemon.

use crate::level::{Level, Shared};
use crate::yard::{Done, Yard, skip};

/// Of every level that this host has one sandbox that attacks and one that is attacked, with a network each.
pub struct Street {
    pub yard: Yard,
    attackers: Vec<String>,
    victims: Vec<String>,
}

impl Street {
    /// The one street of this program.
    pub fn with(test: &str, check: impl FnOnce(&Self)) {
        static STREET: Shared<Street> = Shared::new();
        for level in Level::ALL.into_iter().filter(|level| !level.is_here()) {
            skip(test, &format!("the runtime {} is not on the street", level.runtime()));
        }
        STREET.with(Self::new, check);
    }

    fn new() -> Self {
        let levels: Vec<Level> = Level::ALL.into_iter().filter(|level| level.is_here()).collect();
        let yard = Yard::new();
        let of = |role: &str| -> Vec<String> {
            let name = |level: &Level| format!("{role}-{}", level.runtime().replace('/', "-"));
            for level in &levels {
                yard.ok(&["create", &name(level), "--runtime", level.runtime(), "--memory", "256MiB"]);
                yard.ok(&["start", &name(level)]);
            }
            levels.iter().map(name).collect()
        };
        let (attackers, victims) = (of("attacker"), of("victim"));
        Self { yard, attackers, victims }
    }

    pub fn attackers(&self) -> impl Iterator<Item = &str> {
        self.attackers.iter().map(String::as_str)
    }

    pub fn victims(&self) -> impl Iterator<Item = &str> {
        self.victims.iter().map(String::as_str)
    }

    /// Everyone who attacks with everyone who is attacked.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attackers().flat_map(|attacker| self.victims().map(move |victim| (attacker, victim)))
    }

    pub fn python(&self, name: &str, program: &str) -> Done {
        self.yard.garth(&["exec", name, "--", "python3", "-c", program])
    }

    /// Whether a connection comes about.
    pub fn reaches(&self, from: &str, address: &str, port: u16) -> bool {
        self.python(from, &format!("import socket; socket.create_connection(('{address}', {port}), 2)")).code == 0
    }
}
