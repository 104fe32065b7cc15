#!/bin/bash
# Slurm's Epilog: takes away mounts of xnatfs that a job has left behind dead. Slurm runs it as root
# on each node when a job has ended and its processes are gone:
#
#   Epilog=/etc/slurm/epilog.sh                                              (slurm.conf)
#
# A mount whose process still answers belongs to another job of this user and is left alone.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin # Slurm gives none
while read -r _ dir type options _; do
    [ "$type" = fuse.xnatfs ] || continue
    case ,$options, in *",user_id=$SLURM_JOB_UID,"*) ;; *) continue ;; esac
    dir=$(printf '%b' "$dir") # /proc writes a blank as \040
    # As the user: nobody else may look. statfs(2), because stat(2) may be answered from memory.
    LC_ALL=C timeout 10 runuser -u "$SLURM_JOB_USER" -- stat -f -- "$dir" 2>&1 |
        grep -q 'Transport endpoint is not connected' || continue
    umount -l -- "$dir" && logger -t xnatfs-epilog "job $SLURM_JOB_ID left $dir" 2>/dev/null
done </proc/self/mounts
exit 0 # anything else would take the node out of service
