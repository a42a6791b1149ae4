//! Names for projects whose makers gave none.

use garth_spec::ProjectName;

use crate::project::random_bits;

const KINDS: [&str; 32] = [
    "amber", "brave", "calm", "clever", "cosy", "deep", "eager", "early", "fair", "fresh", "gentle", "glad", "green",
    "happy", "high", "keen", "kind", "light", "lively", "mild", "neat", "noble", "plain", "proud", "quick", "quiet",
    "ready", "silver", "still", "sunny", "swift", "warm",
];

const PLACES: [&str; 32] = [
    "acre", "alder", "arbor", "bank", "barn", "beech", "birch", "brook", "cedar", "court", "croft", "elm", "fence",
    "fern", "field", "ford", "garden", "gate", "glade", "grove", "heath", "hedge", "hill", "lawn", "maple", "meadow",
    "orchard", "pasture", "pond", "terrace", "willow", "yard",
];

/// A name such as `quiet-meadow-4821`; who takes it must still see whether it is free.
pub fn made_up() -> ProjectName {
    let bits = random_bits();
    let pick = |words: &[&'static str; 32], shift: u32| words[(bits >> shift) as usize % 32];
    let name = format!("{}-{}-{:04}", pick(&KINDS, 0), pick(&PLACES, 8), (bits >> 16) % 10_000);
    name.parse().expect("lower-case words, dashes and digits are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_makes_a_name() {
        for word in KINDS.iter().chain(&PLACES) {
            assert!(format!("{word}-{word}-0000").parse::<ProjectName>().is_ok(), "{word}");
        }
        assert_ne!(made_up(), made_up());
    }
}
