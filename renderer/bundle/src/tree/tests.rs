use data_encoding::HEXLOWER;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("hex")
}

/// Inputs and roots published with the Certificate Transparency reference implementation
/// (google/certificate-transparency, `merkletree/merkle_tree_test.cc`), used by every RFC 6962 library since.
const INPUTS: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

#[test]
fn roots_are_those_of_rfc_6962() {
    for (n, root) in ROOTS.iter().enumerate() {
        let head = Tree::new(INPUTS[..=n].iter().map(|input| hex(input))).head();
        assert_eq!(head.size, n as u64 + 1);
        assert_eq!(head.root.hex(), *root, "{} leaves", n + 1);
    }
}

#[test]
fn the_empty_tree_is_the_hash_of_nothing() {
    assert_eq!(
        Tree::new([]).head(),
        TreeHead {
            size: 0,
            root: Digest::of(b"")
        }
    );
}

#[test]
fn every_leaf_of_every_small_tree_is_proven_and_nowhere_else() {
    for size in 1..=20_u64 {
        let tree = Tree::new((0..size).map(|n| n.to_be_bytes().to_vec()));
        let head = tree.head();
        for index in 0..size {
            let proof = tree.prove(index).expect("within the tree");
            let leaf = index.to_be_bytes();
            assert_eq!(head.verify(&leaf, index, &proof), Ok(()));
            assert_eq!(
                head.verify(&leaf, (index + 1) % (size + 1), &proof),
                Err(NotIncluded)
            );
            assert_eq!(head.verify(b"another", index, &proof), Err(NotIncluded));
            for at in 0..proof.len() {
                let mut bent = proof.clone();
                bent[at] = Digest::of(b"bent");
                assert_eq!(head.verify(&leaf, index, &bent), Err(NotIncluded));
                bent.remove(at);
                assert_eq!(head.verify(&leaf, index, &bent), Err(NotIncluded));
            }
            let mut longer = proof.clone();
            longer.push(Digest::of(b"more"));
            assert_eq!(head.verify(&leaf, index, &longer), Err(NotIncluded));
        }
        assert!(tree.prove(size).is_none());
    }
}

#[test]
fn absurd_sizes_are_refused_without_arithmetic() {
    let head = TreeHead {
        size: u64::MAX,
        root: Digest::of(b""),
    };
    assert_eq!(head.verify(b"", u64::MAX - 1, &[]), Err(NotIncluded));
    assert_eq!(
        head.verify(b"", 0, &vec![Digest::of(b""); 64]),
        Err(NotIncluded)
    );
}
