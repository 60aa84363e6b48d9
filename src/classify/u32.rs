use crate::state::*;
use crate::units::ClassId;
pub fn compile(_f: Family, _m: &[Match], _to: ClassId) -> Vec<U32Rule> {
    Vec::new()
}
