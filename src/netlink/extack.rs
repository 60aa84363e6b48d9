//! The kernel's answer to one request: `NLMSG_ERROR` with its extended part (`struct nlmsgerr`,
//! `NLMSGERR_ATTR_*` in `linux/netlink.h`; Documentation/userspace-api/netlink/intro.rst).

use std::fmt;

use nix::errno::Errno;

use super::{HEADER, attr};

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// `NLM_F_CAPPED`: the answer repeats only the header of the request.
const NLM_F_CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;

/// The kernel refused a request. Prints as the kernel's own sentence and the errno's name:
/// `Specified filter kind does not match existing one. (EINVAL)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct KernelError {
    /// The kernel's error number, positive.
    pub errno: Errno,
    /// The kernel's sentence, where it has one.
    pub message: Option<String>,
    /// Which byte of the request the kernel objects to, where it says so (`NLMSGERR_ATTR_OFFS`).
    pub offset: Option<u32>,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = self.message.as_deref().unwrap_or_else(|| self.errno.desc());
        write!(f, "{sentence} ({:?})", self.errno)
    }
}

/// What the kernel answered to one request. A success may carry a sentence too, a warning.
pub type Outcome = Result<Option<String>, KernelError>;

/// Reads what follows the header of an `NLMSG_ERROR` (an ACK is one with code 0) or of an
/// `NLMSG_DONE`, whose code ends a dump. `flags` are those of the answer's header. An answer too
/// short to have a code is EBADMSG.
pub fn outcome(flags: u16, payload: &[u8]) -> Outcome {
    let Some(code) = attr::u32_at(payload, 0).map(u32::cast_signed) else {
        return Err(KernelError { errno: Errno::EBADMSG, message: None, offset: None });
    };
    let attributes = attributes(flags, code, payload).unwrap_or(&[]);
    outcome_of(code, attributes)
}

/// As [`outcome`] for `NLMSG_DONE`: attributes follow the code directly, and without a payload the
/// dump went well.
pub fn done(flags: u16, payload: &[u8]) -> Outcome {
    let code = attr::u32_at(payload, 0).map_or(0, u32::cast_signed);
    let attributes = if flags & NLM_F_ACK_TLVS == 0 { None } else { payload.get(4..) };
    outcome_of(code, attributes.unwrap_or(&[]))
}

fn outcome_of(code: i32, attributes: &[u8]) -> Outcome {
    let message = attr::find(attributes, NLMSGERR_ATTR_MSG).map(attr::text);
    if code == 0 {
        return Ok(message);
    }
    let offset = attr::find(attributes, NLMSGERR_ATTR_OFFS).and_then(|v| attr::u32_at(v, 0));
    // The code is a negated errno.
    let errno = Errno::from_raw(code.checked_neg().unwrap_or(0));
    Err(KernelError { errno, message, offset })
}

/// The attributes behind the copy of the request, which is only a header where the kernel capped
/// the answer or where nothing went wrong (`netlink_ack`, net/netlink/af_netlink.c).
fn attributes(flags: u16, code: i32, payload: &[u8]) -> Option<&[u8]> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let copied = if flags & NLM_F_CAPPED != 0 || code == 0 {
        HEADER
    } else {
        usize::try_from(attr::u32_at(payload, 4)?).ok()?.checked_next_multiple_of(4)?
    };
    payload.get(4_usize.checked_add(copied)?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Error -22, a capped request header, then MSG "No." and OFFS 20.
    fn refusal() -> Vec<u8> {
        let mut bytes = (-22_i32).to_ne_bytes().to_vec();
        bytes.extend([0x40, 0, 0, 0, 40, 0, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([8, 0, 1, 0, b'N', b'o', b'.', 0, 8, 0, 2, 0, 20, 0, 0, 0]);
        bytes
    }

    #[test]
    fn a_refusal_prints_the_kernels_sentence_and_the_errno() {
        let error = outcome(NLM_F_CAPPED | NLM_F_ACK_TLVS, &refusal()).unwrap_err();
        assert_eq!(error.to_string(), "No. (EINVAL)");
        assert_eq!(error.offset, Some(20));
    }

    #[test]
    fn without_a_sentence_the_errno_speaks() {
        let error = outcome(0, &(-17_i32).to_ne_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "File exists (EEXIST)");
    }

    #[test]
    fn a_sentence_on_success_is_a_warning() {
        let mut bytes = refusal();
        bytes[..4].fill(0);
        let warning = outcome(NLM_F_CAPPED | NLM_F_ACK_TLVS, &bytes);
        assert_eq!(warning, Ok(Some("No.".to_string())));
        assert_eq!(outcome(0, &[0; 20]), Ok(None));
    }

    #[test]
    fn an_uncapped_refusal_carries_the_whole_request_before_the_sentence() {
        let mut bytes = (-95_i32).to_ne_bytes().to_vec();
        bytes.extend([0x1a, 0, 0, 0]);
        bytes.extend([0; 24]);
        bytes.extend([8, 0, 1, 0, b'N', b'o', b'.', 0]);
        let error = outcome(NLM_F_ACK_TLVS, &bytes).unwrap_err();
        assert_eq!(error.to_string(), "No. (EOPNOTSUPP)");
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        assert!(outcome(NLM_F_ACK_TLVS, &[1]).is_err());
        assert!(outcome(NLM_F_ACK_TLVS, &[0xff; 8]).is_err());
        assert_eq!(done(0, &[]), Ok(None));
        assert!(outcome(0, &i32::MIN.to_ne_bytes()).is_err());
    }
}
