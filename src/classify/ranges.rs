//! The instructions by which a program looks up a number of the packet in a list of ranges.

use super::assembler::{Assembler, Label, R1, R2, R3, Register};
use crate::tree::Ranges;

/// Which number is compared, and where it is.
#[derive(Clone, Copy)]
pub(super) enum Number {
    /// A number of up to 64 bits, in R1.
    Short,
    /// A number of 128 bits, the upper half in R1 and the lower in R2.
    Long,
}

/// First and last number of each range, ascending as the field's ranges are.
pub(super) fn wide<T: Copy + Into<u128>>(ranges: &Ranges<T>) -> Vec<(u128, u128)> {
    ranges.iter().map(|(first, last)| ((*first).into(), (*last).into())).collect()
}

/// Falls through where the number is in one of the ranges, and else goes to `no`.
pub(super) fn must_be_in(a: &mut Assembler, number: Number, ranges: &[(u128, u128)], no: Label) {
    let yes = a.label();
    Search { number, yes, no }.among(a, ranges);
    a.bind(yes);
}

/// A search that ends at one of two labels.
#[derive(Clone, Copy)]
pub(super) struct Search {
    pub(super) number: Number,
    /// Where to go when the number is in one of the ranges.
    pub(super) yes: Label,
    /// Where to go when the number is in none of them.
    pub(super) no: Label,
}

impl Search {
    /// Searches ranges that ascend and do not overlap, by halves.
    pub(super) fn among(self, a: &mut Assembler, ranges: &[(u128, u128)]) {
        self.above(a, 0, ranges);
    }

    /// As [`Search::among`], where the number is known to be at least `floor`.
    fn above(self, a: &mut Assembler, floor: u128, ranges: &[(u128, u128)]) {
        let Search { number, yes, no } = self;
        match ranges {
            [] => a.jump(no),
            [(only, last)] if only == last && matches!(number, Number::Short) => {
                number.if_is(a, *only, yes);
                a.jump(no);
            }
            [(first, last)] => {
                if *first > floor {
                    let above = a.label();
                    number.if_at_least(a, *first, above);
                    a.jump(no);
                    a.bind(above);
                }
                number.if_at_most(a, *last, yes);
                a.jump(no);
            }
            _ => {
                let upper = a.label();
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let pivot = high.first().map_or(floor, |(first, _)| *first);
                number.if_at_least(a, pivot, upper);
                self.above(a, floor, low);
                a.bind(upper);
                self.above(a, pivot, high);
            }
        }
    }
}

impl Number {
    fn if_at_least(self, a: &mut Assembler, value: u128, label: Label) {
        let (high, low) = ((value >> 64) as u64, value as u64);
        match self {
            Number::Short => match i32::try_from(low) {
                Ok(low) => a.jump_if_at_least(R1, low, label),
                Err(_) => {
                    a.set_64(R3, low);
                    a.jump_if_not_below(R1, R3, label);
                }
            },
            Number::Long => {
                let less = self.same_high(a, high, label, Assembler::jump_if_above);
                a.set_64(R3, low);
                a.jump_if_not_below(R2, R3, label);
                a.bind(less);
            }
        }
    }

    /// Goes to `label` where the number, a short one, is `value`.
    fn if_is(self, a: &mut Assembler, value: u128, label: Label) {
        match i32::try_from(value) {
            Ok(value) => a.jump_if_is(R1, value, label),
            Err(_) => {
                a.set_64(R3, value as u64);
                a.jump_if_same(R1, R3, label);
            }
        }
    }

    fn if_at_most(self, a: &mut Assembler, value: u128, label: Label) {
        let (high, low) = ((value >> 64) as u64, value as u64);
        match self {
            Number::Short => match i32::try_from(low) {
                Ok(low) => a.jump_if_at_most(R1, low, label),
                Err(_) => {
                    a.set_64(R3, low);
                    a.jump_if_not_above(R1, R3, label);
                }
            },
            Number::Long => {
                let more = self.same_high(a, high, label, |a, left, right, label| {
                    a.jump_if_above(right, left, label);
                });
                a.set_64(R3, low);
                a.jump_if_not_above(R2, R3, label);
                a.bind(more);
            }
        }
    }

    /// Compares the upper halves; falls through where they are the same, so that the lower halves
    /// decide.
    fn same_high(
        self,
        a: &mut Assembler,
        high: u64,
        yes: Label,
        decides: impl Fn(&mut Assembler, Register, Register, Label),
    ) -> Label {
        let other = a.label();
        a.set_64(R3, high);
        decides(a, R1, R3, yes);
        a.jump_if_differ(R1, R3, other);
        other
    }
}
