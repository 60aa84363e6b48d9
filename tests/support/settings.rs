//! Numbers from the environment: `make nightly` asks for more than `make test`.

/// The number in the variable `name`; `None` where there is no such variable. Panics where its text
/// is no number.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse().unwrap_or_else(|e| panic!("{name}={text} is no whole number: {e}"))
    })
}
