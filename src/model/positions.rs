//! Positions in lists that other lists go along with. Each list has a type of its own for its
//! positions, so that the compiler tells a link's position from a group's: mixed up, a user would
//! have another's limits. Touches nothing.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use crate::policy::{GroupLine, Policy, UserLine};

/// The position of a link in [`super::Model::links`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAt(usize);

/// The position of a line in `Policy::users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UserAt(usize);

/// The position of a line in `Policy::groups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupAt(usize);

/// A position in one certain list.
pub trait Position: Copy {
    /// The position at an index of that list.
    fn new(index: usize) -> Self;

    /// The index.
    fn index(self) -> usize;
}

impl Position for LinkAt {
    fn new(index: usize) -> LinkAt {
        LinkAt(index)
    }

    fn index(self) -> usize {
        self.0
    }
}

impl Position for UserAt {
    fn new(index: usize) -> UserAt {
        UserAt(index)
    }

    fn index(self) -> usize {
        self.0
    }
}

impl Position for GroupAt {
    fn new(index: usize) -> GroupAt {
        GroupAt(index)
    }

    fn index(self) -> usize {
        self.0
    }
}

impl UserAt {
    pub(super) fn line(self, policy: &Policy) -> &UserLine {
        &policy.users[self.0]
    }
}

impl GroupAt {
    pub(super) fn line(self, policy: &Policy) -> &GroupLine {
        &policy.groups[self.0]
    }
}

/// The lines of `users` with their positions.
pub(super) fn users(policy: &Policy) -> impl Iterator<Item = (UserAt, &UserLine)> {
    policy.users.iter().enumerate().map(|(index, line)| (UserAt(index), line))
}

/// The lines of `groups` with their positions.
pub(super) fn groups(policy: &Policy) -> impl Iterator<Item = (GroupAt, &GroupLine)> {
    policy.groups.iter().enumerate().map(|(index, line)| (GroupAt(index), line))
}

/// One `T` for each position of a list, found by positions of that list alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Per<P, T> {
    values: Vec<T>,
    of: PhantomData<P>,
}

impl<P: Position, T> Per<P, T> {
    /// The list itself, from which the positions come.
    pub fn new(values: Vec<T>) -> Per<P, T> {
        Per { values, of: PhantomData }
    }

    /// How many positions the list has.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the list has no position.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.values.iter()
    }

    /// The values, in order, each with its position.
    pub fn pairs(&self) -> impl Iterator<Item = (P, &T)> {
        self.values.iter().enumerate().map(|(index, value)| (P::new(index), value))
    }

    /// Its positions.
    pub fn positions(&self) -> impl Iterator<Item = P> + use<P, T> {
        (0..self.values.len()).map(P::new)
    }

    /// A list that goes along with this one.
    pub fn along<U>(&self, mut value: impl FnMut(P, &T) -> U) -> Per<P, U> {
        Per::new(self.pairs().map(|(at, each)| value(at, each)).collect())
    }

    /// A list that goes along with this one; `None` if `value` has none for a position.
    pub fn try_along<U>(&self, mut value: impl FnMut(P, &T) -> Option<U>) -> Option<Per<P, U>> {
        self.pairs().map(|(at, each)| value(at, each)).collect::<Option<_>>().map(Per::new)
    }
}

impl<T> Per<UserAt, T> {
    /// A list that goes along with the lines of `users`.
    pub(super) fn user<'p>(
        policy: &'p Policy,
        mut value: impl FnMut(UserAt, &'p UserLine) -> T,
    ) -> Self {
        Per::new(users(policy).map(|(at, line)| value(at, line)).collect())
    }
}

impl<T> Per<GroupAt, T> {
    /// A list that goes along with the lines of `groups`.
    pub(super) fn group<'p>(
        policy: &'p Policy,
        mut value: impl FnMut(GroupAt, &'p GroupLine) -> T,
    ) -> Self {
        Per::new(groups(policy).map(|(at, line)| value(at, line)).collect())
    }
}

impl<P: Position, T> Index<P> for Per<P, T> {
    type Output = T;

    fn index(&self, at: P) -> &T {
        &self.values[at.index()]
    }
}

impl<P: Position, T> IndexMut<P> for Per<P, T> {
    fn index_mut(&mut self, at: P) -> &mut T {
        &mut self.values[at.index()]
    }
}

impl<'a, P: Position, T> IntoIterator for &'a Per<P, T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
