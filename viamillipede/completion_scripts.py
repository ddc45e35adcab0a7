"""What the completion of each shell is made of; @NAME@ stands for what `completion` makes of the help.

All three walk along the command line in the same way. `role`: the last tx, rx or other first word. `pending`: 1
when the next token is its first operand, 2 for the second. `value`: the option whose value comes next. `hosted`:
a path was named, so that another one may be. `used`: the options that were said already.
"""

BASH = r"""# bash completion for viamillipede; printed by: viamillipede completion bash
_viamillipede() {
    local cur='' piece='' token='' name='' role='' pending=0 value='' hosted='' used=' ' behind=''
    local words='' files='' prefix='' i
    local -a tokens=() at=()
    COMPREPLY=()

    # readline splits at = and : too; the program does not.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        if ((${#tokens[@]})) && [[ $piece == [:=]* || $token == *[:=] ]]; then
            token+=$piece
            tokens[${#tokens[@]} - 1]=$token
        else
            token=$piece
            tokens+=("$token")
            at+=("$i")
        fi
    done
    cur=$token
    [[ $piece == *[!:=]* ]] || piece=''

    for ((i = 0; i < ${#tokens[@]} - 1; i++)); do
        token=${tokens[i]}
        if [[ $value ]]; then
            value=''
            continue
        fi
        if ((pending)) && [[ $token != -* ]] &&
            ! [[ ' @OPTIONAL@ ' == *" $role "* && ' @WORDS@ ' == *" $token "* ]]; then
            if ((pending == 2)) || [[ ' @SINGLE@ ' == *" $role "* ]] ||
                [[ ' @NUMBER@ ' == *" $role "* && $token != *[!0-9]* ]]; then
                pending=0
            else
                pending=2
                _viamillipede_operands "$role"
                [[ " $words " == *" $token "* ]] || hosted=1
                words=''
            fi
            continue
        fi
        pending=0
        if [[ $token == -- ]]; then
            behind=$((at[i] + 1))
            break
        fi
        if [[ ' @FIRSTS@ ' == *" $token "* ]]; then
            role=$token
            pending=1
            continue
        fi
        name=${token#--}
        name=${name%%=*}
        if [[ $token != --*=* && ' @VALUED@ ' == *" $name "* ]]; then
            value=$name
        fi
        [[ ' @TERMS@ ' == *" $name "* ]] || used+="$name "
    done

    if [[ $behind ]]; then
        if declare -F _command_offset >/dev/null; then
            _command_offset "$behind"
        elif ((behind == COMP_CWORD)); then
            COMPREPLY=($(compgen -c -- "$cur"))
        else
            files=1
        fi
    elif [[ $value || $cur == --*=* ]]; then
        if [[ ! $value ]]; then
            prefix=${cur%%=*}=
            value=${prefix#--}
            value=${value%=}
        fi
        case $value in
        @CASE_VALUES@
        esac
    elif ((pending == 2)); then
        return
    else
        if ((pending)); then
            _viamillipede_operands "$role"
            [[ ' @HOSTED@ ' != *" $role "* ]] || _viamillipede_hosts
        fi
        if ((!pending)) || [[ ' @OPTIONAL@ ' == *" $role "* ]]; then
            _viamillipede_words
        fi
    fi
    if [[ $files ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r name; do COMPREPLY+=("$prefix$name"); done < <(compgen -f -- "${cur#"$prefix"}")
    fi
    if [[ $words ]]; then
        COMPREPLY+=($(compgen -P "$prefix" -W "$words" -- "${cur#"$prefix"}"))
    fi
    [[ $behind ]] || COMPREPLY=("${COMPREPLY[@]#"${cur:0:${#cur}-${#piece}}"}")
}

_viamillipede_operands() {
    case $1 in
        @CASE_OPERANDS@
        *) words='' ;;
    esac
}

_viamillipede_words() {
    local all=$words
    words=''
    case $role in
        @CASE_WORDS@
    esac
    for name in $words; do
        [[ $used == *" $name "* ]] && continue
        [[ $cur == -* ]] && name=--$name
        all+=" $name"
    done
    case $role in
        '') all+=' @FIRSTS@' ;;
        *) [[ $hosted && ' @REPEATED@ ' == *" $role "* ]] && all+=" $role" ;;
    esac
    [[ ' @COMMANDED@ ' == *" $role "* ]] && all+=' --'
    case $cur in
        -@ASIDES@
    esac
    [[ $cur == -* ]] && all+=" $words"
    words=$all
}

_viamillipede_hosts() {
    if declare -F _known_hosts_real >/dev/null; then
        _known_hosts_real -- "$cur"
    else
        COMPREPLY=($(compgen -A hostname -- "$cur"))
    fi
}

complete -F _viamillipede viamillipede
"""

ZSH = r"""#compdef viamillipede
# zsh completion for viamillipede; printed by: viamillipede completion zsh

_viamillipede() {
    local token name role='' value='' hosted='' files=''
    local -i pending=0 behind=0 i
    local -a used list kept
    local -a firsts=(@FIRSTS@) optional=(@OPTIONAL@) single=(@SINGLE@) number=(@NUMBER@) valued=(@VALUED@)
    local -a hosts=(@HOSTED@) repeated=(@REPEATED@) commanded=(@COMMANDED@) known=(@WORDS@) terms=(@TERMS@)

    for ((i = 2; i < CURRENT; i++)); do
        token=${(Q)words[i]}
        if [[ -n $value ]]; then
            value=''
            continue
        fi
        if ((pending)) && [[ $token != -* ]] && ! ((optional[(Ie)$role] && known[(Ie)$token])); then
            if ((pending == 2 || single[(Ie)$role])) || { ((number[(Ie)$role])) && [[ $token != *[^0-9]* ]] }; then
                pending=0
            else
                pending=2
                _viamillipede_operands
                ((list[(Ie)$token])) || hosted=1
                list=()
            fi
            continue
        fi
        pending=0
        if [[ $token == -- ]]; then
            behind=$i
            break
        fi
        if ((firsts[(Ie)$token])); then
            role=$token
            pending=1
            continue
        fi
        name=${${token#--}%%=*}
        [[ $token == --*=* ]] || ((!valued[(Ie)$name])) || value=$name
        ((terms[(Ie)$name])) || used+=($name)
    done

    if ((behind)); then
        shift behind words
        ((CURRENT -= behind))
        _normal
        return
    fi
    if [[ -z $value && $PREFIX == --*=* ]]; then
        value=${${PREFIX#--}%%=*}
        compset -P '*='
    fi
    if [[ -n $value ]]; then
        case $value in
        @CASE_VALUES@
        esac
        ((!$#list)) || _describe -t values value list
        [[ -z $files ]] || _files
        return
    fi
    ((pending == 2)) && return 1
    if ((pending)); then
        _viamillipede_operands
        ((!$#list)) || _describe -t operands operand list
        ((!hosts[(Ie)$role])) || _hosts
        ((optional[(Ie)$role])) || return
    fi
    _viamillipede_words
}

_viamillipede_operands() {
    case $role in
        @CASE_OPERANDS@
        *) list=() ;;
    esac
}

_viamillipede_words() {
    list=()
    case $role in
        @CASE_WORDS@
    esac
    local dashes=''
    [[ $PREFIX == -* ]] && dashes=--
    for name in $list; do
        ((used[(Ie)${name%%:*}])) || kept+=($dashes$name)
    done
    if [[ -n $dashes ]]; then
        case $role in
            @ASIDES@
        esac
        kept+=($list)
    fi
    ((!commanded[(Ie)$role])) || kept+=('--:the command whose output or input the stream is')
    if [[ -z $role ]]; then
        kept+=($firsts)
    elif [[ -n $hosted ]] && ((repeated[(Ie)$role])); then
        kept+=("${role}:another path")
    fi
    _describe -o -t words word kept
}

if [[ $funcstack[1] == _viamillipede ]]; then
    _viamillipede "$@"
else
    compdef _viamillipede viamillipede
fi
"""

FISH = r"""# fish completion for viamillipede; printed by: viamillipede completion fish

function __viamillipede_operands
    switch $argv[1]
        @CASE_OPERANDS@
    end
end

function __viamillipede_words
    switch $argv[1]
        @CASE_WORDS@
    end
end

function __viamillipede_values
    switch $argv[1]
        @CASE_VALUES@
    end
end

function __viamillipede
    set -l tokens (commandline -opc)
    set -l role ''
    set -l pending 0
    set -l value ''
    set -l hosted ''
    set -l used
    set -e tokens[1]
    while set -q tokens[1]
        set -l token $tokens[1]
        set -e tokens[1]
        if test -n "$value"
            set value ''
            continue
        end
        set -l operand 0
        if test $pending -gt 0; and not string match -q -- '-*' $token
            set operand 1
            if contains -- "$role" @OPTIONAL@; and contains -- $token @WORDS@
                set operand 0
            end
        end
        if test $operand = 1
            if test $pending = 2; or contains -- $role @SINGLE@
                set pending 0
            else if contains -- $role @NUMBER@; and string match -qr '^[0-9]+$' -- $token
                set pending 0
            else
                set pending 2
                contains -- $token (__viamillipede_operands $role | string split -f 1 \t); or set hosted 1
            end
            continue
        end
        set pending 0
        if test "$token" = --
            set -l line (string escape -- $tokens) (commandline -ct)
            complete -C "$(string join ' ' -- $line)"
            return
        end
        if contains -- $token @FIRSTS@
            set role $token
            set pending 1
            continue
        end
        set -l name (string replace -r '^--' '' -- $token | string split -f 1 =)
        if not string match -q -- '--*=*' $token; and contains -- $name @VALUED@
            set value $name
        end
        contains -- $name @TERMS@; or set -a used $name
    end
    if test -n "$value"
        __viamillipede_values $value
        return
    end
    test $pending = 2; and return
    if test $pending = 1
        __viamillipede_operands $role
        contains -- $role @HOSTED@; and __fish_print_hostnames
        contains -- $role @OPTIONAL@; or return
    end
    for row in (__viamillipede_words $role)
        contains -- (string split -f 1 \t -- $row) $used; or echo $row
    end
    if test -z "$role"
        printf '%s\n' @FIRSTS@
    else if test -n "$hosted"; and contains -- $role @REPEATED@
        printf '%s\t%s\n' $role 'another path'
    end
    contains -- $role @COMMANDED@; and printf '%s\t%s\n' -- 'the command whose output or input the stream is'
end

function __viamillipede_before
    not contains -- -- (commandline -opc)
end

complete -c viamillipede -f -a '(__viamillipede)'
@LONGS@
"""
