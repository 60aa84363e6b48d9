//! How a policy is to be read.

/// How strictly names must be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// Neither NSS nor the kernel was asked (`check --offline`): what depends on accounts and links
    /// is not checked, and the model has only what is certain without them.
    pub offline: bool,
    /// An account or Unix group that is unknown, or that NSS could not answer for, is a warning:
    /// its line keeps its class and nobody is in it.
    pub skip_unknown: bool,
    /// A link that is not there is passed over with a warning, as if its line said `optional`.
    pub skip_absent: bool,
    /// As `skip_absent`, where links come and go during the run: no warning is made for a link
    /// whose line says `optional`, and a link that a pattern means and that cannot be shaped is
    /// passed over too.
    pub absent_links: bool,
}
