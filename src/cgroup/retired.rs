//! Claims of retired classes: `retired/1a:user:bob` has the minor that was bob's until no socket or
//! packet carries it any more.

use super::directory::subdirectories;
use super::error::Error;
use super::instance::Instance;
use super::layout::RETIRED;
use crate::tree::Claim;
use crate::units::Minor;

impl Instance {
    /// Whether a class with this minor is retired.
    pub fn is_retired(&self, minor: Minor) -> Result<bool, Error> {
        let names = subdirectories(&self.root().join(RETIRED))?;
        let claims = names.iter().filter_map(|name| format!("{RETIRED}/{name}").parse().ok());
        Ok(claims.filter_map(|claim: Claim| claim.retired()).any(|retired| retired == minor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_class_is_known_by_its_minor_whoever_had_it() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        assert!(!instance.is_retired(Minor(0x1a)).unwrap(), "there is no such folder");
        for name in ["1a:user:bob", "1b", "1c:nonsense"] {
            std::fs::create_dir_all(instance.root().join(RETIRED).join(name)).unwrap();
        }
        let retired = [0x1a, 0x1b, 0x1c, 0x1d].map(|minor| instance.is_retired(Minor(minor)));
        assert_eq!(retired.map(Result::unwrap), [true, true, false, false]);
    }
}
