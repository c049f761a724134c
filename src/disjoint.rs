//! Disjoint sets of numbered members that are joined pairwise (union-find).

/// Disjoint sets; the root of a set is its smallest member.
#[derive(Debug, Default)]
pub(crate) struct Forest(Vec<u32>);

impl Forest {
    /// Creates sets of one member each, numbered from 0. There are at most 2^32.
    pub(crate) fn new(members: usize) -> Self {
        Self((0..members as u32).collect())
    }

    /// Adds a set of one member and returns its number.
    pub(crate) fn push(&mut self) -> u32 {
        let member = self.0.len() as u32;
        self.0.push(member);
        member
    }

    /// Returns the root of a member's set.
    pub(crate) fn root(&mut self, mut member: u32) -> u32 {
        loop {
            let parent = self.0[member as usize];
            if parent == member {
                return member;
            }
            let grandparent = self.0[parent as usize];
            self.0[member as usize] = grandparent;
            member = grandparent;
        }
    }

    /// Joins the sets of two members.
    pub(crate) fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b) as usize] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_joined_to_their_smallest_member() {
        let mut forest = Forest::new(4);
        assert_eq!(forest.push(), 4);
        forest.join(4, 3);
        forest.join(1, 2);
        forest.join(3, 2);
        let roots: Vec<u32> = (0..5).map(|member| forest.root(member)).collect();
        assert_eq!(roots, [0, 1, 1, 1, 1]);
    }
}
