# Sourced: module paths of one kernel in the order in which they load.

# What the tests need. Some kernels have some of them built in, or lack them: left out in silence,
# because the test that needs one says so better.
lab_modules='veth ifb bridge 8021q ipv6 sch_htb sch_fq_codel sch_sfq sch_cake sch_tbf sch_ingress cls_u32 cls_cgroup cls_bpf act_mirred inet_diag tcp_diag udp_diag tun iptable_nat xt_nat xt_MASQUERADE xt_tcpudp vxlan ip_gre ipip sit wireguard'
# Loaded last: where one of these is there, the kernels of the lab let the tag decide before the owner.
lab_carriers='macvlan ipvlan openvswitch'

# modules_in_order FOLDER MODULE...: paths below FOLDER (the one with modules.dep), each after all that it needs.
modules_in_order() {
    modules=$1
    shift
    for module in "$@"; do
        awk -F: -v name="/$module.ko" '
            substr($1, length($1) - length(name) + 1) == name {
                # modules.dep lists what a module needs with the outermost first.
                n = split($2, needs, " ")
                for (i = n; i > 0; i--) print needs[i]
                print $1
            }' "$modules/modules.dep"
    done | awk '!seen[$0]++'
}
